// One anchor with the positive p and the hardest negative n: its loss, and the weights -dL/dp and dL/dn.
// Operations and their order are those of uwml_lib.losses, so rounding on an edge falls the same way.
const SKIPPED = {used: false, loss: 0, positive: 0, negative: 0};
const evaluate = (coefficients, x) => coefficients.reduceRight((value, coefficient) => value * x + coefficient, 0);
const slope = ([, linear, quadratic], x) => 2 * quadratic * x + linear;

const LIVE = {
  polynomial({p0, p1, p2, q0, q1, q2, margin, clamp, ceiling}, p, n) {
    if (n + margin <= p || p >= ceiling) return SKIPPED;
    const P = evaluate([p0, p1, p2], p), Q = evaluate([q0, q1, q2], n);
    const [pulled, pushed] = clamp === "each" ? [P >= 0, Q >= 0] : [P + Q >= 0, P + Q >= 0];
    return {
      used: true,
      loss: clamp === "each" ? Math.max(P, 0) + Math.max(Q, 0) : Math.max(P + Q, 0),
      positive: pulled ? 0 - slope([p0, p1, p2], p) : 0,
      negative: pushed ? slope([q0, q1, q2], n) : 0,
    };
  },
  triplet({triplet_margin}, p, n) {
    const hinge = triplet_margin + n - p;
    return hinge >= 0 ? {used: true, loss: hinge, positive: 1, negative: 1} : SKIPPED;
  },
};

// A pair at one similarity, the other pair of its anchor held.
function livePoint(name, kind, settings, similarity) {
  const {positive_held, negative_held} = settings;
  const anchor = kind === "positive"
    ? LIVE[name](settings, similarity, negative_held) : LIVE[name](settings, positive_held, similarity);
  return {similarity, loss: anchor.loss, weight: anchor[kind], used: anchor.used};
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
