#!/usr/bin/env bash
# Proves on Google Cloud what no test can prove without it, in a project of yours, and takes everything away again.
#
#   PROJECT=my-project REGION=europe-west4 templates/smoke.sh [-var NAME=VALUE …]        variables for Terraform
#
# Makes everything under a name of its own, builds image and template, launches one worker, sends ten messages, updates,
# drains, destroys, and prints a table of what was proved. Takes about 45 minutes and costs a few coins; the exit code is
# 0 if all was proved. It needs an owner's rights, gcloud, terraform, and this package installed for PYTHON.
#
#   MODEL=sentence-transformers/all-MiniLM-L6-v2  REVISION=  TASK=feature-extraction      a model that takes text
#   VARIANT=cpu  ACCELERATOR=  and all other knobs of templates/deploy.sh
#   NAME=smoke-TIME  WAIT=900 (seconds that a job may take to run, and messages to end)  KEEP=1 (destroys nothing)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

export PROJECT=${PROJECT:-} REGION=${REGION:-} NAME=${NAME:-smoke-$(date +%H%M%S)} VARIANT=${VARIANT:-cpu}
export MAX_WORKERS=${MAX_WORKERS:-1} TAG=${TAG:-$NAME} PYTHONPATH=${PYTHONPATH:-.}
PYTHON=${PYTHON:-python3} WAIT=${WAIT:-900} POLL=${POLL:-15} SETTLE=${SETTLE:-30}
MODEL=${MODEL:-sentence-transformers/all-MiniLM-L6-v2} REVISION=${REVISION:-} TASK=${TASK:-feature-extraction}
KEPT=.cache/smoke/$NAME # Terraform's state, without which nothing could be destroyed
VARS=("-var=project=$PROJECT" "-var=region=$REGION" "-var=name=$NAME" -var=throwaway=true "$@")
JOB='' FAILED=0 TABLE='' applied=''

main() {
  [[ -n $PROJECT && -n $REGION ]] || { echo "error: set PROJECT and REGION; see the head of $0" >&2 && exit 2; }
  mkdir -p "$KEPT"
  local repeats=''
  if [[ ${MODE:-exactly_once} == at_least_once ]]; then repeats=1; fi
  # Each is a step of the table. After one has failed only what takes things away is run.
  step tools "gcloud, terraform and this package are here, and gcloud is logged in" tools
  step services "the services that enabling others takes are on" services
  step validate "the providers accept the configuration" validate
  step apply "topics, table, bucket and accounts are made, in one apply" apply
  step build "the image builds, runs the installed job and is pushed" build
  step provenance "the image has its provenance" provenance
  step template "the template is there, and takes the job's parameters" template
  step doctor "the doctor finds nothing wrong" doctor
  step launch "the launcher starts the job, and it runs" launch
  step publish "ten messages are sent" smoke publish
  step messages "each message is accounted for" smoke check "--settle_s=$SETTLE" ${repeats:+--repeats} ${ACCELERATOR:+--device=cuda}
  step update "the job is replaced by an update, and goes on" update
  step drain "the job drains" drain
  step waits "what comes after the drain waits in the subscription" smoke waiting
  finish
}

# step NAME WORDS COMMAND…: runs it, unless something failed before, and adds a line to the table.
step() {
  local name=$1 words=$2 result=skipped log=$KEPT/$1.log began=$SECONDS
  shift 2
  if [[ $FAILED == 0 ]]; then
    echo "── $name: $words"
    # A pipe would run the step in a shell of its own, where what it sets is lost.
    if "$@" > "$log" 2>&1; then result=ok; else result=FAILED FAILED=1; fi
    sed 's/^/   /' "$log" | tail -n 30
  fi
  row "$name" "$result" "$((SECONDS - began))" "$words"
  if [[ $result == FAILED ]]; then row '' '' '' "see $log"; fi
  # What a step says was proved one by one belongs into the table.
  if [[ -f $log && $result != skipped ]]; then
    local verdict
    while IFS= read -r verdict; do row '' "${verdict%% *}" '' "${verdict#* }"; done < <(grep -E '^(ok|FAILED) ' "$log")
  fi
}

row() { TABLE+=$(printf '%-11s %-8s %6s  %s' "$1" "$2" "${3:+$3 s}" "$4")$'\n'; }

finish() {
  trap - INT TERM
  if [[ -n $JOB ]]; then
    local cancelled=FAILED
    if gcloud dataflow jobs cancel "$JOB" "--project=$PROJECT" "--region=$REGION" > "$KEPT/cancel.log" 2>&1; then
      cancelled=ok
    fi
    row cancel "$cancelled" '' "the job that was left is cancelled"
  fi
  if [[ -n ${KEEP:-} ]]; then
    row destroy kept '' "KEEP is set: $(destroy_command)"
  elif [[ -n $applied ]]; then
    local before=$FAILED
    FAILED=0
    step destroy "all of it is gone" destroy
    if [[ $FAILED == 1 ]]; then row '' '' '' "by hand: $(destroy_command)"; fi
    if [[ $before == 1 ]]; then FAILED=1; fi
  fi
  printf '\n%-11s %-8s %8s  %s\n%s' step result took 'what is proved' "$TABLE"
  exit "$FAILED"
}

tools() {
  gcloud auth print-access-token > /dev/null && terraform version && "$PYTHON" -c 'import pipeline.main'
}

services() {
  gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com iam.googleapis.com \
    "--project=$PROJECT"
}

tf() { TF_DATA_DIR="$PWD/$KEPT/terraform" terraform -chdir=templates/terraform "$@"; }
validate() { tf init -input=false && tf validate; }
destroy_command() { echo "NAME=$NAME TF_DATA_DIR=\$PWD/$KEPT/terraform terraform -chdir=templates/terraform destroy -state=\$PWD/$KEPT/terraform.tfstate ${VARS[*]}"; }
destroy() { tf destroy -auto-approve -input=false "-state=$PWD/$KEPT/terraform.tfstate" "${VARS[@]}"; }

apply() {
  applied=1
  tf apply -auto-approve -input=false "-state=$PWD/$KEPT/terraform.tfstate" "${VARS[@]}" || return 1
  local lines
  lines=$(tf output -raw "-state=$PWD/$KEPT/terraform.tfstate" deploy_env) && eval "$lines" || return 1
  # No flag has a space in it, so that this splits into the flags.
  IFS=' ' read -r -a FLAGS <<< "$(tf output -raw "-state=$PWD/$KEPT/terraform.tfstate" flags)"
  FLAGS+=("--model=$MODEL" "--task=$TASK" --max_batch_latency_ms=50)
  if [[ -n $REVISION ]]; then FLAGS+=("--revision=$REVISION"); fi
  # At least once nothing is deduplicated, and the flag is refused.
  if [[ ${MODE:-exactly_once} == exactly_once ]]; then FLAGS+=(--id_attribute=smoke_id); fi
}

build() { templates/deploy.sh build; }
image() { echo "$REGION-docker.pkg.dev/$PROJECT/$REPOSITORY/$VARIANT:$TAG"; }

provenance() {
  local told
  told=$(gcloud artifacts docker images describe "$(image)" --show-provenance "--project=$PROJECT" \
    '--format=value(provenance_summary.provenance)') || return 1
  [[ -n $told ]] || { echo "no provenance of $(image)" && return 1; }
}

template() {
  local told
  told=$(gcloud storage cat "gs://$BUCKET/templates/$NAME-$VARIANT-$TAG.json") || return 1
  echo "$told" | "$PYTHON" -c '
import json, sys
spec = json.load(sys.stdin)
assert spec["image"] == sys.argv[1], spec["image"]
print(len(spec["metadata"]["parameters"]), "parameters")' "$(image)"
}

doctor() {
  "$PYTHON" -m pipeline.doctor "${FLAGS[@]}" --runner=DataflowRunner "--project=$PROJECT" "--region=$REGION" \
    "--temp_location=gs://$BUCKET/temp" "--staging_location=gs://$BUCKET/staging" "--sdk_container_image=$(image)"
}

launch() {
  templates/deploy.sh run "${FLAGS[@]}" || return 1
  newest && reaches "$JOB" JOB_STATE_RUNNING
}

smoke() {
  "$PYTHON" templates/smoke.py "$@" "--project=$PROJECT" "--name=$NAME" "--run=$NAME" "--wait_s=$WAIT"
}

update() {
  local before=$JOB
  templates/deploy.sh update "${FLAGS[@]}" || return 1
  # In place the old job's state goes over to the new one; the other ways drain it.
  local left=JOB_STATE_UPDATED
  if [[ ${UPDATE:-in_place} != in_place ]]; then left=JOB_STATE_DRAINED; fi
  newest "$before" && reaches "$JOB" JOB_STATE_RUNNING && reaches "$before" "$left" && smoke one
}

drain() {
  templates/deploy.sh drain && reaches "$JOB" JOB_STATE_DRAINED && JOB=''
}

# newest [OTHER]: sets JOB to the newest job of our name that is not OTHER.
newest() {
  local deadline=$((SECONDS + WAIT)) id=''
  while [[ -z $id || $id == "${1:-}" ]]; do
    if ((SECONDS > deadline)); then echo "no new job named $NAME after $WAIT s" && return 1; fi
    if [[ -n $id ]]; then sleep "$POLL"; fi
    id=$(gcloud dataflow jobs list "--project=$PROJECT" "--region=$REGION" "--filter=name=$NAME" --status=all \
      --sort-by=~creationTime --limit=1 '--format=value(id)') || return 1
    if [[ -z $id ]]; then sleep "$POLL"; fi
  done
  JOB=$id
  echo "job $JOB"
}

# reaches JOB STATE: waits for it, and gives up at a state that it cannot leave.
reaches() {
  local deadline=$((SECONDS + WAIT)) state=''
  while [[ $state != "$2" ]]; do
    case $state in
      JOB_STATE_FAILED | JOB_STATE_CANCELLED | JOB_STATE_DONE | JOB_STATE_DRAINED | JOB_STATE_UPDATED)
        echo "job $1 is $state, not $2: gcloud logging read 'resource.labels.job_id=\"$1\" severity>=ERROR'" && return 1
        ;;
    esac
    if ((SECONDS > deadline)); then echo "job $1 is $state after $WAIT s, not $2" && return 1; fi
    if [[ -n $state ]]; then sleep "$POLL"; fi
    state=$(gcloud dataflow jobs describe "$1" "--project=$PROJECT" "--region=$REGION" '--format=value(currentState)') || return 1
  done
  echo "job $1 is $state"
}

trap 'FAILED=1; finish' INT TERM
main
