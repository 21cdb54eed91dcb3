// A pair at one similarity, the other pair of its anchor held; as uwml_lib.weighting.one_anchor, no other anchor is informative.
function pointAt(name, kind, settings, similarity) {
  const {positive_held, negative_held} = settings, {formula, settings: own} = DATA.losses[name];
  const [p, n] = kind === "positive" ? [similarity, negative_held] : [positive_held, similarity];
  const {loss, weights, images} = lossOf(formula, {...own, ...slid(name, settings)}, [[p, n], [-10, 10]]);
  return {similarity, loss, weight: weights[0][kind === "positive" ? 0 : 1], used: images[0].used};
}

// What the sliders say of a loss.
function slid(name, {p0, p1, p2, q0, q1, q2, margin, clamp, triplet_margin}) {
  if (name === "polynomial") return {positive: [p0, p1, p2], negative: [q0, q1, q2], margin, clamp};
  return name === "triplet" ? {margin: triplet_margin} : {};
}

// Where a curve does nothing or harm: stretches of one state; `pointAt`, if there is one, finds their ends exactly.
function stretches(points, pointAt) {
  const stateOf = ({used, weight}) => !used ? "out" : Math.abs(weight) < 5e-10 ? "dead" : weight < 0 ? "wrong" : "right";
  const edge = (left, right) => {
    const state = stateOf(pointAt(left));
    for (let halving = 0; halving < 60; halving++) {
      const middle = (left + right) / 2;
      if (stateOf(pointAt(middle)) === state) left = middle; else right = middle;
    }
    return right;
  };
  const found = [];
  for (const point of points) {
    const state = stateOf(point), last = found.at(-1);
    if (last?.state === state) {
      last.to = point.similarity;
      last.lowest = Math.min(last.lowest, point.weight);
    } else {
      const from = last && pointAt ? edge(last.to, point.similarity) : point.similarity;
      if (last && pointAt) last.to = from;
      found.push({state, from, to: point.similarity, lowest: point.weight});
    }
  }
  return found.filter(({state, from, to}) => state !== "right" && to - from > 1e-9);
}
