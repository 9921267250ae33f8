#!/bin/sh
# Three hospitals and a server on this machine, over NVFlare or Flower, with certificates; what each says is printed.
#
#     sh examples/three_hospitals/run.sh [nvflare|flower] [FOLDER]
set -e
engine=${1:-nvflare}
folder=${2:-runs/three_hospitals_$engine}
port=${PORT:-9092}
harmofl data synth --to "$folder/images" --sites 3 --images 24 --size 64
harmofl deploy init --out "$folder/deployment" --engine "$engine" --address "localhost:$port" \
    --site site-1 --site site-2 --site site-3 \
    --set training.rounds=5 --set run.threads=1 --set 'network.options={features=8}' --set training.lr=0.001

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
harmofl deploy serve "$folder/deployment/server" &
server=$!
for site in site-1 site-2 site-3; do
    harmofl deploy join "$folder/deployment/$site" --data "$folder/images" 2>&1 | sed -u "s/^/$site  /" &
done
wait $server
sleep 1
harmofl deploy status "$folder/deployment/server"
