#!/bin/sh
cd /srv/cxr && umask 077 && mkdir -p nights && exec 9> night.lock || exit 2
flock -n 9 || { echo "cxr: the call before still runs"; exit 2; }
for images in inbox/*/; do
  night=$(basename "$images")
  [ -d "$images" ] && [ "$night" != "$(date +%F)" ] || continue  # still arrives
  [ ! -e "nights/$night.csv" ] || continue  # has its answers
  venv/bin/cxr predict retinanet chexnet "$images" --dicom-ids \
    --out "nights/$night" --csv "nights/$night.csv" > "nights/$night.txt" 2>&1
  status=$?
  result="exit status $status"
  [ $status != 0 ] || [ "$(wc -l < "nights/$night.csv")" -gt 1 ] || result="$result, no file came"
  echo "$(date +%FT%T) night $night: $result" >> nights.log
  [ "$result" = "exit status 0" ] || echo "cxr: night $night: $result"
done
night=$(date -d yesterday +%F)
[ -d "inbox/$night" ] || echo "cxr: night $night: no folder came"
find inbox nights -mindepth 1 -maxdepth 1 -ctime +40 -exec rm -rf {} +
