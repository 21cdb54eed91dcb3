// Every loss as one anchor sees it: from the score p of its positive and the scores ns of its negatives, its value and the
// weights -dL/dp and dL/dn. Operations and their order are those of uwml_lib.losses, so rounding on an edge falls the same way.
const sum = (xs) => xs.reduce((total, x) => total + x, 0);
const dot = (xs, ys) => sum(xs.map((x, k) => x * ys[k]));
const times = (xs, ys) => xs.map((x, k) => x * ys[k]);
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const evaluate = (coefficients, x) => coefficients.reduceRight((value, coefficient) => value * x + coefficient, 0);
const derivative = (coefficients) => coefficients.map((coefficient, power) => power * coefficient).slice(1);
const within = (margin, p, ns) => ns.map((n) => margin === null || n + margin > p);

function logSumExp(xs) {
  const largest = Math.max(...xs);
  return largest + Math.log(sum(xs.map((x) => Math.exp(x - largest))));
}

// How much each negative counts: "all" alike, on "average", or the "hardest" alone; tied ones share.
function shares(ns, counted, negatives) {
  const hardest = Math.max(...ns.filter((_, j) => counted[j]));
  const chosen = ns.map((n, j) => Number(counted[j] && (negatives !== "hardest" || n === hardest)));
  return negatives === "all" ? chosen : chosen.map((one) => one / Math.max(sum(chosen), 1));
}

const anchor = (loss, negative, positive = sum(negative), used = true) => ({loss, positive, negative, used});

function hinge(margin, p, ns, negatives, allowed = () => true) {
  const gaps = ns.map((n) => margin + n - p);
  const share = shares(ns, gaps.map((gap, j) => gap >= 0 && allowed(ns[j])), negatives);
  return anchor(dot(share, gaps), share, sum(share), sum(share) > 0);
}

const LOSSES = {
  triplet: ({margin, negatives}, p, ns) => hinge(margin, p, ns, negatives),
  triplet_semihard: ({margin}, p, ns) => hinge(margin, p, ns, "hardest", (n) => n < p),
  triplet_soft({scale, negatives}, p, ns) {
    const gaps = ns.map((n) => scale * (n - p)), share = shares(ns, ns.map(() => true), negatives);
    return anchor(dot(share, gaps.map(softplus)) / scale, times(share, gaps.map(sigmoid)));
  },
  polynomial({positive, negative, margin, negatives, clamp, positive_ceiling}, p, ns) {
    const informative = within(margin, p, ns).map((near) => near && !(p >= (positive_ceiling ?? Infinity)));
    const share = shares(ns, informative, negatives), each = clamp === "each";
    const P = evaluate(positive, p), Qs = ns.map((n) => evaluate(negative, n));
    const clamped = Qs.map((Q) => each ? Math.max(P, 0) + Math.max(Q, 0) : Math.max(P + Q, 0));
    const pulled = Qs.map((Q) => (each ? P : P + Q) >= 0), pushed = Qs.map((Q) => (each ? Q : P + Q) >= 0);
    const push = ns.map((n, j) => pushed[j] ? share[j] * evaluate(derivative(negative), n) : 0);
    return anchor(dot(share, clamped), push, 0 - evaluate(derivative(positive), p) * dot(share, pulled), informative.includes(true));
  },
  polynomial_relative({coefficients, margin, negatives}, p, ns) {
    const R = coefficients ?? [margin * margin, 2 * margin, 1], informative = within(margin, p, ns);
    const share = shares(ns, informative, negatives), values = ns.map((n) => evaluate(R, n - p));
    const push = ns.map((n, j) => values[j] >= 0 ? share[j] * evaluate(derivative(R), n - p) : 0);
    return anchor(dot(share, values.map((value) => Math.max(value, 0))), push, sum(push), informative.includes(true));
  },
  infonce({temperature}, p, ns) {
    const logits = ns.map((n) => n / temperature), own = p / temperature, others = logSumExp(logits), all = logSumExp([own, others]);
    return anchor(softplus(others - own) / 2, logits.map((logit) => Math.exp(logit - all) / (2 * temperature)));
  },
  sigmoid({scale, bias}, p, ns) {
    const own = scale * p + bias, logits = ns.map((n) => scale * n + bias);
    return anchor((softplus(-own) + sum(logits.map(softplus))) / 2, logits.map((logit) => sigmoid(logit) * scale / 2), sigmoid(-own) * scale / 2);
  },
  multi_similarity({alpha, beta, base, margin}, p, ns) {
    const informative = within(margin, p, ns), used = informative.includes(true), easy = -alpha * (p - base);
    const logits = ns.map((n, j) => informative[j] ? beta * (n - base) : -Infinity), others = softplus(logSumExp(logits));
    if (!used) return anchor(0, ns.map(() => 0), 0, false);
    return anchor(softplus(easy) / alpha + others / beta, logits.map((logit) => Math.exp(logit - others)), sigmoid(easy));
  },
  circle({relaxation, gamma}, p, ns) {
    const own = Math.max(1 + relaxation - p, 0), factors = ns.map((n) => Math.max(n + relaxation, 0));
    const push = ns.map((n, j) => gamma * factors[j] * (n - relaxation)), others = logSumExp(push);
    const logit = others - gamma * own * (p - 1 + relaxation), undone = gamma * sigmoid(logit);
    return anchor(softplus(logit), push.map((one, j) => undone * Math.exp(one - others) * factors[j]), undone * own);
  },
};

// The loss of an image x caption matrix, summed over the anchors of both directions, and the weight of every pair: on the
// diagonal -dL/dS, elsewhere dL/dS.
function lossOf(name, settings, scores) {
  const seen = (rows) => rows.map((row, i) => LOSSES[name](settings, row[i], row.filter((_, j) => j !== i)));
  const images = seen(scores), captions = seen(scores.map((_, j) => scores.map((row) => row[j])));
  const weight = (one, i, j) => i === j ? one.positive : one.negative[j - (j > i)];
  return {
    loss: sum([...images, ...captions].map((one) => one.loss)), images,
    weights: scores.map((row, i) => row.map((_, j) => weight(images[i], i, j) + weight(captions[j], j, i))),
  };
}

// Coefficients as uwml_lib.weighting.from_scores proposes them: the released weights at 0.35 and at 1, put where the middle
// 98 % of the scores begin and end. Null where scores are all equal.
function fromScores(positives, negatives) {
  const [P, Q] = [[positives, 0.56, 0.3, -1], [negatives, 0.23, 1.4, 1]].map(([scores, first, last, sign]) => {
    const sorted = [...scores].sort((one, other) => one - other);
    const [low, high] = [0.01, 0.99].map((share) => {
      const place = share * (sorted.length - 1), below = Math.floor(place), above = Math.min(below + 1, sorted.length - 1);
      return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
    });
    const slope = (last - first) / (high - low), rising = [0, sign * (first - slope * low), sign * slope / 2];
    return low < high ? [0 - evaluate(rising, sign < 0 ? high : low), rising[1], rising[2]] : null;
  });
  return P && Q && {positive: P, negative: Q};
}
