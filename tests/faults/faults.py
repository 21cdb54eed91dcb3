"""Faults as people make them, one a line: name | area | what the library says ==> what the fault makes of it.

The text before the arrow must stand in the library exactly once, wherever that is. Write it short, so that it outlives
a move; a blank in it may be a line break there. A fault must be one that matters: a wrong number, a lost file, a
sentence that is not true.
"""
# ruff: noqa: E501

import json
from pathlib import Path
from typing import NamedTuple

CAUGHT = Path(__file__).with_name("caught.json")
"""Fault -> the test that caught it last, which is asked first the next time."""


class Fault(NamedTuple):
    """A text of the library, and a wrong one for its place; `areas.py` says which tests should notice."""

    name: str
    area: str
    before: str
    after: str


TABLE = r"""
positive among its negatives | losses | self._without_positives(mask, rows, columns, False) ==> self._without_positives(mask, rows, columns, True)
siblings as negatives | losses | if image_ids is not None: ==> if image_ids is not None and m > n:
mask of negatives unheeded | losses | if self.allowed is None else [self.allowed[rows][:, columns]] ==> if True else []
caption ids unheeded | losses | if caption_ids is not None: ==> if caption_ids is None and m > n:
mean over 2 N | losses | (total / len(scores) if ==> (total / (2 * len(scores)) if
one direction twice | losses | return scores[:, : len(scores)].T, negative_mask[:, : len(scores)].T ==> return scores, negative_mask
ties do not share the gradient | losses | of_dim / tied.sum(dim).clamp(min=1) ==> of_dim * tied.sum(dim).clamp(max=1)
anchors without negatives in the statistics | losses | n.masked_fill(n == -torch.inf, torch.nan) ==> n.masked_fill(n == -torch.inf, 0)
ceiling forgotten | losses | (n + self.margin <= p) | (p >= self.positive_ceiling) ==> (n + self.margin <= p)
clamp on one polynomial alone | losses | P.clamp(min=0) + Q.clamp(min=0) ==> P.clamp(min=0) + Q
average over the batch | losses | informative.sum(dim=1).clamp(min=1)).sum() ==> len(scores)).sum()
all negatives without mask | losses | hinges.masked_fill(~counted, 0) ==> hinges
tied negative is semi-hard | losses | return scores, negative_mask & ~(scores >= p) ==> return scores, negative_mask & ~(scores > p)
soft margin without its scale | losses | (softplus(gaps) * share).sum() / self.scale ==> (softplus(gaps) * share).sum()
InfoNCE counted twice | losses | softplus(gathered - widened(p) / self.temperature).sum() / 2 ==> softplus(gathered - widened(p) / self.temperature).sum()
circle differentiates its factors | losses | (scores.detach() + self.relaxation).clamp(min=0) ==> (scores + self.relaxation).clamp(min=0)
multi-similarity without beta | losses | softplus(gathered) / self.beta ==> softplus(gathered)
sigmoid pushes positives | losses | softplus(-logits.diagonal()).sum() ==> softplus(logits.diagonal()).sum()
dense form is sparse | losses | dense.negatives = self.dense_negatives ==> dense.negatives = self.negatives
derivative one power off | losses | in enumerate(coefficients))[1:] ==> in enumerate(coefficients, 1))[1:]
further columns count as images | losses | mask = mask | self.beyond[columns] ==> mask = mask & ~self.beyond[columns]
streamed ties have one winner | losses | tied | (value == best)) & ==> tied) &
streamed places without their block | losses | torch.where(larger, place + first, places) ==> torch.where(larger, place, places)
streamed gradient keeps its length | losses | of.sub_((of * unit).sum(dim=1, keepdim=True) * unit).mul_(scale) ==> of.mul_(scale)
streamed sums forget the positive | losses | known[side][3][at] += of_q ==> known[side][3][at] += 0 * of_q
weights act on what is uninformative | losses | negative * scores - positive * p, informative ==> negative * scores - positive * p, negative_mask
float16 is not widened | losses | in (torch.float16, torch.bfloat16) ==> in (torch.bfloat16,)
hard negatives are left out | losses | torch.cat(columns[1:]) ==> columns[1]
scale without a gradient | losses | value = value + (0 * unused.sum()).to(dtype) ==> pass
bias is not added | losses | if logit_bias is not None: ==> if logit_bias is None:
attention clipped to zero | attention | a = F.leaky_relu(a, SLOPE) ==> a = F.relu(a)
normalised over the context | attention | torch.linalg.vector_norm(a, dim=2, keepdim=True) ==> torch.linalg.vector_norm(a, dim=3, keepdim=True)
padding is attended to | attention | logits.masked_fill(~context_mask[:, None, None, :], -torch.inf) ==> logits.masked_fill(~context_mask[:, None, None, :], 0)
mean over the padding too | attention | query_mask is None else query_mask.sum(dim=-1) ==> query_mask is None else relevance.shape[-1]
one lambda for the other | attention | DEFAULT_LAMBDA_LSE[direction] if ==> DEFAULT_LAMBDA_SOFTMAX[direction] if
captions handed back in another order | attention | order.argsort().to(captions.device ==> order.to(captions.device
gradient of the wrong sign | attention | (-inner * scale.square()) ==> (inner * scale.square())
Gram gradient halved | attention | grad_part.baddbmm_(grad_gram.to(part.dtype), part) ==> grad_part.baddbmm_(grad_gram.to(part.dtype), part, alpha=0.5)
last states in another order | models | last.index_select(1, back) ==> last
directions of the GRU mixed up | models | words.unflatten(-1, (2, -1)).mean(dim=-2) ==> words.unflatten(-1, (-1, 2)).mean(dim=-1)
gradient of a GRU's states lost | models | dh[: len(grad)].add_(grad) ==> dh[: len(grad)]
lengths beyond the padding | models | not 1 <= least <= most <= x.shape[1] ==> not 1 <= least <= most
ties count for us, images | metrics | reaches(scores[rows], best[0][rows, None]) ==> torch.gt(scores[rows], best[0][rows, None])
ties count for us, captions | metrics | reaches(scores[rows], best[1]) ==> torch.gt(scores[rows], best[1])
captions of other images are true | metrics | torch.stack([captions // captions_per_image, captions]) ==> torch.stack([captions % scores.shape[0], captions])
median rounded up | metrics | np.floor(np.median(values)) + 1 ==> np.ceil(np.median(values)) + 1
recall one rank too far | metrics | (values < k).mean() ==> (values <= k).mean()
best fold for the mean of folds | metrics | np.mean([fold[name] for fold in folds]) ==> np.max([fold[name] for fold in folds])
every fold the captions of the first | metrics | (first * K + chosen).tolist() ==> chosen.tolist()
twins are wrong | metrics | for image in {caption // captions_per_image for caption in same} ==> for image in {same[0] // captions_per_image}
model left in evaluation mode | metrics | model.train(was_training) ==> model.eval()
spread of a population | statistics | array.std(ddof=1) ==> array.std(ddof=0)
one degree of freedom too many | statistics | / 2, len(difference) - 1) ==> / 2, len(difference))
one-sided bootstrap | statistics | [(1 - confidence) / 2, (1 + confidence) / 2] ==> [1 - confidence, confidence]
best caption for the mean of captions | statistics | (per_caption < k).mean(axis=1) ==> (per_caption < k).max(axis=1)
seeds alone decide | statistics | self.over_seeds.sign != self.over_images.sign ==> False
ahead though the interval holds 0 | statistics | int(self.low > 0) - int(self.high < 0) ==> int(self.high > 0) - int(self.low < 0)
rare words one occurrence late | vocabulary | count >= threshold and ==> count > threshold and
unknown words are padding | vocabulary | self.index.get(token, UNKNOWN) ==> self.index.get(token, PAD)
capitals kept | vocabulary | caption = caption.lower() ==> caption = caption.strip()
cannot left in one | vocabulary | cannot|gimme ==> gimme
caption without its end | vocabulary | for token in self.tokens(caption, style)), END] ==> for token in self.tokens(caption, style))]
tokenizer not kept | vocabulary | "tokenizer": self.tokenizer} ==> "tokenizer": "punkt"}
captions not padded with <pad> | data | padding_value=PAD ==> padding_value=1
caption of another image | data | index // self.captions_per_image ==> index % len(self.features)
captions of the images before | data | slice(start * self.captions_per_image, stop * self.captions_per_image) ==> slice(start, start + (stop - start) * self.captions_per_image)
fingerprint blind to captions | data | digest.update(read_bytes(text)) ==> digest.update(text.name.encode())
test replaced by dev in silence | data | if there := [path.name for path in others if path.exists()] ==> if there := []
captions of an image apart | data | if name != (wanted := names[row - row % K]): ==> if name != (wanted := name):
boxes of other images | data | array[:: self._copies][self._first :][ ==> array[:: self._copies][
copies in another split unseen | data | (one is not other or first[digest] < number) ==> (one is other and first[digest] < number)
coefficients fitted to what is reported | data | dev = load_selection(config, vocabulary) ==> dev = load_split(config, "dev", vocabulary)
selection images trained on | data | n_images = len(dataset.features) - config.selection_images ==> n_images = len(dataset.features) - config.selection_images // 2
keys of a batch forgotten | data | dict.fromkeys(self._keys[item], place + 1) ==> dict.fromkeys(self._keys[item], place)
nothing changes places | data | if has.isdisjoint(self._keys[other]) ==> if has.isdisjoint(self._keys[item])
Adam starts afresh | resume | self.optimizer.load_state_dict(state["optimizer"]) ==> self.optimizer.load_state_dict(self.optimizer.state_dict())
same order of captions every epoch | resume | self.loader.set_epoch(epoch) ==> self.loader.set_epoch(0)
learning rate falls an epoch early | resume | 0.1 ** (epoch // ==> 0.1 ** ((epoch + 1) //
last of equal epochs is best | resume | record["dev_rsum"] > self.best_rsum ==> record["dev_rsum"] >= self.best_rsum
changed state goes on | resume | if "seal" in state and state["seal"] != ==> if state.get("seal") is state and state["seal"] !=
best rsum forgotten on resuming | resume | self.best_rsum, files = state["records"], state["best_rsum"], ==> self.best_rsum, files = state["records"], -math.inf,
steps of a begun epoch trained twice | resume | skip_first_batches(self.loader, done) if ==> skip_first_batches(self.loader, 0) if
readings since the last line forgotten | resume | "pending": read_steps(self.pending) ==> "pending": []
spoilt weights kept | resume | if due and all( ==> if due or all(
half a renaming left undone | resume | sha256_of(self.new_weights) == self.best_digest ==> sha256_of(self.new_weights) != self.best_digest
damaged line in the middle passed over | resume | number == len(lines) and isinstance(error, json.JSONDecodeError) ==> isinstance(error, json.JSONDecodeError)
damaged archive is read | resume | if damaged := file.testzip() ==> if damaged := None
gradients never clipped | resume | self.config.gradient_clip or math.inf ==> math.inf
one epoch of warm-up too many | resume | loss = self.warmup_loss if epoch < ==> loss = self.warmup_loss if epoch <=
siblings setting upside down | resume | self.config.siblings == "ignored" ==> self.config.siblings != "ignored"
twins setting upside down | resume | self.config.twins == "ignored" ==> self.config.twins != "ignored"
run folder of other settings is taken | resume | if there[name] != wanted: ==> if there[name] != there[name]:
vocabulary of another size is taken | resume | if vocabulary_size != len(vocabulary) ==> if vocabulary_size < len(vocabulary)
big-endian boxes | importers | validate=True), "<f4") ==> validate=True), ">f4")
image in two rows | importers | for image, count in times.items() if count > 1 ==> for image, count in times.items() if count > 2
only caption 0 of an image recognised | importers | r"(.*)#(\d+)" ==> r"(.*)#(0)"
quote swallows lines | importers | range(line + 1, reader.line_num + 1) ==> range(line + 1, line + 1)
given splits dealt anew | importers | given_names(captions, given) if given else ==> given_names(captions, given) if not kept else
two images of one id | importers | expect_once(places, f"of the id {key!r}", f"{where}, {name!r},") ==> pass
split read as caption | importers | ("split", -1, SPLITS ==> ("split", 1, SPLITS
restval to dev | importers | "restval": "train" ==> "restval": "dev"
last five captions | importers | sentences[:wanted] ==> sentences[-(wanted or 0):]
last thousand test images | importers | splits["testall"].items())[:TEST_1K] ==> splits["testall"].items())[-TEST_1K:]
videos with unequal captions | importers | wanted or min(map(len, items.values())) ==> wanted or max(map(len, items.values()))
first video without offset | importers | np.cumsum([0, *(shapes ==> np.cumsum([*(shapes
first image without offset | importers | np.cumsum([0, *(of ==> np.cumsum([*(of
one caption number for all splits | importers | wanted or min(map(len, items.values())) ==> wanted or min(map(len, captions.values()))
rows written after their place | importers | -regions_left * len(content) // len(numbers) ==> -regions_left * len(content) // len(numbers) + 4
boxes turned like features | importers | if len(features) == n else features.T ==> if len(features) == n else features.reshape(n, -1)
ids of two images taken for one | importers | if plain[plain_id(image)] == 1 ==> if plain[plain_id(image)]
width for height | importers | shares * (*size, *size) ==> shares * (*size[::-1], *size[::-1])
least sure boxes first | importers | descending=True, stable=True ==> descending=False, stable=True
test images in dev | importers | order[n_train:-n_test] ==> order[n_train:]
split by the order of the file | importers | order = sorted(names) ==> order = list(names)
features missing on the page passed over | download | status == 404 and file.path.startswith(VOCABULARIES) ==> status == 404
what came is not checked | download | READERS[arrived.suffix](arrived) ==> str(arrived)
disk too small for unzipping | download | size + largest - bytes_in(arrivals) ==> size - bytes_in(arrivals)
what the hub sent is not checked | download | wanted and (found := sha256_of(part)) != wanted ==> wanted and (found := sha256_of(part)) == ""
a download begun anew | download | "wb" if beyond else "ab" ==> "wb"
paths out of an archive | download | and ".." not in parts and not ==> and not
photographs without a split passed over | download | expect(all(counts[split] for split in usual) ==> expect(any(counts[split] for split in usual)
weights looked for when all is downloaded | download | regions, dim = grid_model(weights, backbone, resolution).shape  # before gigabytes ==> regions, dim = 36, 512  # before gigabytes
digest of every setting, cosmetic too | config | for item in fields(self) if "cosmetic" not in item.metadata} ==> for item in fields(self)}
digest blind to the data | config | json.dumps([identity, data_fingerprint] ==> json.dumps([identity]
default in the digest | config | if value != usual[name]} ==> }
batch of one | config | least=2, most=10**6 ==> least=1, most=10**6
infinite setting | config | type(value) in (int, float) and abs(value) <= sys.float_info.max ==> type(value) in (int, float)
all negatives with --max_violation | config | loss == "triplet" and not flags["max_violation"] ==> loss == "triplet" and flags["max_violation"]
pull shown as push | weights | 0 - gradient.diagonal() ==> gradient.diagonal()
positives among the negatives' weights | weights | gradient.clone().fill_diagonal_(0) ==> gradient.clone()
clamp of the sum forgotten | weights | (lowest[partner] if loss.clamp == "sum" else 0) ==> 0
clamp bites the found coefficients | weights | (loss - _minimum(loss, score_range)).coef ==> loss.coef
first caption alone in batches | weights | start * captions_per_image + k : ==> start * captions_per_image :
agreement within one std | reports | <= 2 * spread ==> <= spread
chance of one caption | reports | 100 * min(k / n_images, 1) ==> 100 * min(k / n_captions, 1)
Holm forgets where to stop | statistics | family -= significant ==> family -= 1
spreads taken for equal | statistics | equal_var=False ==> equal_var=True
digest of another file | reports | "SHA-256": sha256_of(run.folder / "results.json") ==> "SHA-256": sha256_of(run.folder / "config.json")
seeds out of order | reports | sorted(self.runs, key=lambda run: run.seed) ==> sorted(self.runs, key=lambda run: -run.seed)
last epoch against the one reached | reports | ["dev_rsum"].iloc[epochs - 1] ==> ["dev_rsum"].iloc[-1]
losses of other seeds compared | statistics | sides[0].keys() ^ sides[1].keys() ==> sides[0].keys() - sides[0].keys()
collapse upside down | reports | abs(gap) < COLLAPSED ==> abs(gap) > COLLAPSED
worse models are counted as better | site | better with {ahead['polynomial']} of ==> better with {ahead['triplet']} of
a glossary entry for each word of a term | site | re.split(r", (?![^()]*\)) ==> re.split(r",? (?![^()]*\))
page with unescaped text | site | [<$]", lambda ==> [$]", lambda
pages not escaped | site | escape(str(value)) ==> str(value)
equations left as text | site | _equation(line.strip()) for ==> line.strip() for
curve upside down | site | (high - values) / ((high - low) or 1) ==> (values - low) / ((high - low) or 1)
pages of runs that are gone | site | shutil.rmtree(folder / path.name) ==> str(folder / path.name)
explorer's margin forgotten | site | margin === null || n + margin > p ==> margin === null || n > p
explorer's clamp on the sum forgotten | site | : Math.max(P + Q, 0)); ==> : P + Q);
tied negatives count whole in pages | site | one / Math.max(sum(chosen), 1) ==> one
playground pushes true pairs | site | (i === j ? 1 : -1) * settings.rate ==> (i === j ? -1 : 1) * settings.rate
link replaced by a file | files | Path(path).resolve()  # through a link ==> Path(path)  # through a link
NaN in JSON | files | indent=1, allow_nan=False ==> indent=1, allow_nan=True
changed results are read | files | if seal != seal_of(value) ==> if not seal
lines end at any separator | files | text.removesuffix("\n").split("\n") ==> text.splitlines()
array longer than it says | files | (expected := array.offset + array.nbytes) != ( ==> (expected := array.offset + array.nbytes) > (
file changed since | files | if sha256_of(path) != digest ==> if not digest
nothing kept of a full folder | files | os.replace(path, retired) ==> shutil.rmtree(path)
stale embeddings are used | search | read_sealed_json(about)["of"] != of ==> not read_sealed_json(about)["of"]
changed embeddings are used | search | check_files(folder, found["files"]) ==> found["files"]
embeddings in the split's order | search | yield self.items[first : first + size], rows ==> yield np.arange(first, first + size), rows
worst matches first | search | (-scores).argsort(kind="stable")[:top] ==> scores.argsort(kind="stable")[:top]
unknown words are not named | search | return Matches(sentence, "images", found, unknown) ==> return Matches(sentence, "images", found)
a number goes before an id | search | if item in ids: ==> if item in ids and not item.isdecimal():
another backbone's features | search | same = built.digest == about["digest"] ==> same = built.name == about["backbone"]
words of a page unescaped | search | trim_blocks=True, autoescape=True ==> trim_blocks=True, autoescape=False
"""


def _read(table: str) -> list[Fault]:
    faults = []
    for line in table.strip().splitlines():
        name, area, change = line.split(" | ", 2)
        before, _, after = change.partition(" ==>")
        faults.append(Fault(name, area, before, after.strip()))
    return faults


FAULTS = _read(TABLE)


def caught_by() -> dict[str, str]:
    """Return which test caught each fault last, of those that were tried."""
    return json.loads(CAUGHT.read_text(encoding="utf-8")) if CAUGHT.exists() else {}


def save_caught(caught: dict[str, str]) -> None:
    """Keep which test caught each fault that is still in the list."""
    known = {fault.name: caught[fault.name] for fault in FAULTS if fault.name in caught}
    CAUGHT.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
