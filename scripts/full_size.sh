#!/usr/bin/env bash
# The full-size study: detector and classifier on all of RSNA, as scripts/full_size.toml says.
# usage: scripts/full_size.sh DATA [OUT]      DATA: RSNA in Kaggle's layout, with rsna_to_nih.csv
#        scripts/full_size.sh --small [OUT]   the same steps on 60 synthetic images: shows that they run
# An interrupted study goes on where it was if you run it again. docs/results.md names it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

small=false
source=${1:-}
out=${2:-$here/full-size-output}
case "$source" in
  --small) small=true source=$out/xrays ;;
  "" | -*) stop "usage: scripts/full_size.sh DATA [OUT], or scripts/full_size.sh --small [OUT]" ;;
esac
[ -n "${CXR_SKIP_INSTALL:-}" ] || prepare_environment train
export PATH="$venv/bin:$PATH"

# The protocol as variables of this shell; a list of the TOML becomes an array.
protocol=$(python3 - "$here/scripts/full_size.toml" "$small" <<'END'
import shlex, sys, tomllib
keys = tomllib.load(open(sys.argv[1], "rb"))
replaced = keys.pop("small")
if sys.argv[2] == "true":
    keys |= replaced
for name, value in keys.items():
    text = shlex.join(map(str, value)) if isinstance(value, list) else shlex.quote(str(value))
    print(f"{name}=({text})" if isinstance(value, list) else f"{name}={text}")
END
)
eval "$protocol"
mkdir -p "$out"
[ -f "$out/protocol.txt" ] || printf '%s\n' "$protocol" >"$out/protocol.txt"
[ "$protocol" = "$(cat "$out/protocol.txt")" ] ||
  stop "$out was started with another protocol ($out/protocol.txt): give another folder"

# step NAME MARKER COMMAND...: skipped where an earlier call has finished it.
step() {
  local name=$1 marker=$2 since=$SECONDS
  shift 2
  if [ -f "$marker" ]; then say "done before: $name"; return; fi
  say
  say "\$ $*"
  "$@"
  say "$name: $((SECONDS - since)) s"
}

# model NAME FOLD SEED CONFIGURATION SETTING...: trains, and predicts the images of the fold.
model() {
  local name=$1 fold=$2 seed=$3 configuration=$4 settings=() setting
  local run=$out/runs/fold-$fold/$name-$seed predictions=$out/predictions/fold-$fold/$name-$seed
  shift 4
  for setting in "$@"; do settings+=(--set "$setting"); done
  step "train $name, fold $fold, seed $seed" "$run/run.json" \
    cxr train "$configuration" --data "$out/data" --out "$run" --set "data.split=fold-$fold" \
    --set "data.image_size=$image_size" --set "training.seed=$seed" \
    --set "training.epochs=$epochs" --set training.patience=0 "${settings[@]}"
  step "predict $name, fold $fold, seed $seed" "$predictions/predictions.json" \
    cxr predict "$run" --data "$out/data" --split "fold-$fold" --out "$predictions"
  systems+=("$name=$predictions")
}

if [ "$small" = true ]; then
  step synth "$source/synth.json" cxr synth "$source" --images 60 --size 128 --seed 1
fi
step prepare "$out/data/dataset.json" \
  cxr prepare "$source" "$out/data" --format rsna --size "$image_size"
step folds "$out/data/splits/cv-$((folds - 1)).json" \
  cxr split "$out/data" --name cv --folds "$folds" --seed "$split_seed"
for ((fold = 0; fold < folds; fold++)); do
  step "split of fold $fold" "$out/data/splits/fold-$fold.json" \
    cxr split "$out/data" --name "fold-$fold" --from "cv-$fold" --val "$validation" --seed "$split_seed"
done
for seed in "${seeds[@]}"; do
  reports=()
  for ((fold = 0; fold < folds; fold++)); do
    report=$out/reports/seed-$seed/fold-$fold systems=()
    model RetinaNet "$fold" "$seed" "$detector" "${detector_settings[@]}"
    model CheXNet "$fold" "$seed" "$classifier" "${classifier_settings[@]}"
    step "compare fold $fold, seed $seed" "$report/answer.json" \
      cxr compare "${systems[@]}" --both --data "$out/data" --split "fold-$fold" \
      --target "$target" --replicates "$replicates" --out "$report"
    reports+=("$report")
  done
  step "means over folds, seed $seed" "$out/means/seed-$seed/folds.csv" \
    cxr folds "${reports[@]}" --out "$out/means/seed-$seed"
done

say
say "Done in $SECONDS s. Open:"
printf '%s\n' "$out"/means/*/folds.csv "$out"/reports/*/*/report.html
