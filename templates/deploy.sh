#!/usr/bin/env bash
# Builds the flex template and runs, updates or drains its job.
#
#   templates/deploy.sh [--dry-run] build [--variant=cpu|gpu] [--model=HUB_ID --revision=COMMIT]
#   templates/deploy.sh [--dry-run] run    FLAG…      flags of python -m pipeline.main, as --name=value
#   templates/deploy.sh [--dry-run] update FLAG…      the same; replaces the running job of that name
#   templates/deploy.sh [--dry-run] drain             finishes what is in work, then stops
#
# Where, from the environment (terraform output -raw deploy_env prints all of them):
#   PROJECT  REGION  BUCKET  REPOSITORY  WORKER_SERVICE_ACCOUNT      required
#   NAME=inference  VARIANT=cpu  TAG=VERSION                         names of job, image and template
#   MACHINE_TYPE  MAX_WORKERS  SUBNETWORK  KMS_KEY  BUILD_SERVICE_ACCOUNT      optional
#   ACCELERATOR=nvidia-l4      GPU workers, with the image of VARIANT=gpu
#   MODE=exactly_once          or at_least_once: cheaper and faster, and results may repeat
#
# --dry-run prints the commands, ready to be pasted, and runs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# gcloud separates lists at commas, which JSON has too; this is what separates them here.
readonly SEPARATOR=':::'

main() {
  local dry_run=''
  if [[ ${1:-} == --dry-run ]]; then dry_run=1 && shift; fi
  readonly dry_run
  local command=${1:-}
  case $command in
    build | run | update | drain) shift ;;
    *) fail "use build, run, update or drain; see the head of $0" ;;
  esac
  NAME=${NAME:-inference} VARIANT=${VARIANT:-cpu}
  TAG=${TAG:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pipeline/__init__.py)}
  need PROJECT REGION
  "$command" "$@"
}

build() {
  local model='' revision='' flag
  for flag in "$@"; do
    case $flag in
      --variant=*) VARIANT=${flag#*=} ;;
      --model=*) model=${flag#*=} ;;
      --revision=*) revision=${flag#*=} ;;
      *) fail "build: $flag: use --variant, --model and --revision" ;;
    esac
  done
  [[ $VARIANT == cpu || $VARIANT == gpu ]] || fail "--variant=$VARIANT: use cpu or gpu"
  [[ -z $model || -n $revision ]] || fail "--model=$model: give the --revision to bake in, a commit hash"
  need BUCKET REPOSITORY
  local values="_IMAGE=$(image),_TEMPLATE=$(template),_VARIANT=$VARIANT,_MODEL=$model,_REVISION=$revision"
  local args=(builds submit . "--project=$PROJECT" "--region=$REGION"
    --config=templates/flex/cloudbuild.yaml --ignore-file=templates/flex/Dockerfile.dockerignore
    "--substitutions=$values" "--gcs-source-staging-dir=gs://$BUCKET/build" "--gcs-log-dir=gs://$BUCKET/build/logs")
  if [[ -n ${BUILD_SERVICE_ACCOUNT:-} ]]; then
    args+=("--service-account=projects/$PROJECT/serviceAccounts/$BUILD_SERVICE_ACCOUNT")
  fi
  execute gcloud "${args[@]}"
}

run() { launch "$@"; }

update() {
  local mapping
  mapping=$(python3 -c '
import json, sys
mapping = json.load(open("templates/flex/transform_name_mapping.json"))
print(sys.argv[1].join(f"{old}={new}" for old, new in mapping.items()))' "$SEPARATOR")
  LAUNCH_ARGS+=(--update)
  if [[ -n $mapping ]]; then LAUNCH_ARGS+=("--transform-name-mappings=^$SEPARATOR^$mapping"); fi
  launch "$@"
}

launch() {
  need BUCKET REPOSITORY WORKER_SERVICE_ACCOUNT
  local parameters="sdk_container_image=$(image)" options='' flag
  for flag in "$@"; do
    [[ $flag == --*=* ]] || fail "$flag: write flags as --name=value"
    parameters+="$SEPARATOR${flag#--}"
  done
  if [[ -n ${ACCELERATOR:-} ]]; then
    [[ $VARIANT == gpu ]] || fail "ACCELERATOR=$ACCELERATOR needs VARIANT=gpu: the cpu image has no CUDA"
    options="dataflow_service_options=worker_accelerator=type:$ACCELERATOR;count:1;install-nvidia-driver"
  fi
  case ${MODE:-exactly_once} in
    exactly_once) ;;
    at_least_once) LAUNCH_ARGS+=(--additional-experiments=streaming_mode_at_least_once) ;;
    *) fail "MODE=$MODE: use exactly_once or at_least_once" ;;
  esac
  local args=(dataflow flex-template run "$NAME" "--project=$PROJECT" "--region=$REGION"
    "--template-file-gcs-location=$(template)" "--service-account-email=$WORKER_SERVICE_ACCOUNT"
    "--staging-location=gs://$BUCKET/staging" "--temp-location=gs://$BUCKET/temp"
    --enable-streaming-engine "--parameters=^$SEPARATOR^$parameters")
  if [[ -n $options ]]; then args+=("--additional-pipeline-options=^$SEPARATOR^$options"); fi
  if [[ -n ${MACHINE_TYPE:-} ]]; then args+=("--worker-machine-type=$MACHINE_TYPE"); fi
  if [[ -n ${MAX_WORKERS:-} ]]; then args+=("--max-workers=$MAX_WORKERS"); fi
  if [[ -n ${SUBNETWORK:-} ]]; then args+=("--subnetwork=$SUBNETWORK" --disable-public-ips); fi
  if [[ -n ${KMS_KEY:-} ]]; then args+=("--dataflow-kms-key=$KMS_KEY"); fi
  execute gcloud "${args[@]}" "${LAUNCH_ARGS[@]}"
}

drain() {
  local list=(gcloud dataflow jobs list "--project=$PROJECT" "--region=$REGION" --status=active
    "--filter=name=$NAME" "--format=value(id)")
  local id=JOB_ID  # for the dry run: what the first command prints
  if [[ -n $dry_run ]]; then
    execute "${list[@]}"
  else
    id=$("${list[@]}")
    [[ -n $id ]] || fail "no running job is named $NAME in $REGION"
  fi
  execute gcloud dataflow jobs drain "$id" "--project=$PROJECT" "--region=$REGION"
}

LAUNCH_ARGS=()
image() { echo "$REGION-docker.pkg.dev/$PROJECT/$REPOSITORY/$VARIANT:$TAG"; }
template() { echo "gs://$BUCKET/templates/$NAME-$VARIANT-$TAG.json"; }
fail() { echo "error: $*" >&2 && exit 2; }

need() {
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || fail "$name is not set; \`eval \"\$(terraform -chdir=templates/terraform output -raw deploy_env)\"\` sets it"
  done
}

execute() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

main "$@"
