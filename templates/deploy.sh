#!/usr/bin/env bash
# Builds the flex template and runs, updates or drains its job.
#
#   templates/deploy.sh [--dry-run] build [--variant=cpu|gpu] [--model=HUB_ID --revision=COMMIT]
#   templates/deploy.sh [--dry-run] run    FLAG…      flags of python -m pipeline.main and Beam's, as --name=value
#   templates/deploy.sh [--dry-run] update FLAG…      the same; replaces the running job of that name
#   templates/deploy.sh [--dry-run] drain             finishes what is in work, then stops
#
# Where, from the environment (terraform output -raw deploy_env prints all of them):
#   PROJECT  REGION  BUCKET  REPOSITORY  WORKER_SERVICE_ACCOUNT      required
#   SUBNETWORK  KMS_KEY  BUILD_SERVICE_ACCOUNT                       where there are any
#   NAME=inference  VARIANT=cpu  TAG=VERSION                         names of job, image and template
# How large (a model needs more than Dataflow's own defaults of one or two vCPUs, and rarely its hundred workers):
#   MACHINE_TYPE=n2-standard-4  DISK_GB=50  MAX_WORKERS=4
#   MIN_WORKERS  UTILIZATION                                         least workers, and CPU use (0.1 to 0.9) aimed at
#   LAUNCHER_MACHINE_TYPE=n2-standard-2                              the VM that builds the graph, once a launch
#   ACCELERATOR=nvidia-l4  DRIVER=5xx                                GPU workers, with the image of VARIANT=gpu
# In which way:
#   MODE=exactly_once          or at_least_once: cheaper and faster, and results may repeat
#   UPDATE=in_place            or stop_and_replace (the old job drains first), or parallel (both run for OVERLAP);
#   STOP_WITHIN=30m  OVERLAP=10m     for those two; what has not drained by then is cancelled
#   LAUNCHER  WORKER_IMAGE     other images than the Dockerfile's launcher, and than the template's for the workers
#
# --dry-run prints the commands, ready to be pasted, and runs nothing. Runs on bash 3.2, which macOS has.
set -euo pipefail
cd "$(dirname "$0")/.."

# gcloud separates lists at commas, which JSON has too; this is what separates them here.
readonly SEPARATOR=':::'

# Beam's own flags that may be given. The template service refuses as a parameter what metadata.json does not declare
# (github.com/hashicorp/terraform-provider-google/issues/11008), and Beam would pass over a misspelt one.
BEAM_FLAGS=' autoscaling_algorithm dataflow_service_options default_sdk_harness_log_level'
BEAM_FLAGS+=' element_processing_timeout_minutes experiments labels max_cache_memory_usage_mb min_cpu_platform'
BEAM_FLAGS+=' number_of_worker_harness_threads profile_cpu profile_location profile_memory profile_sample_rate'
BEAM_FLAGS+=' sdk_harness_log_level_overrides update_compatibility_version worker_disk_type worker_region worker_zone '
readonly BEAM_FLAGS

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
  local values
  values="_IMAGE=$(image),_VARIANT=$VARIANT,_MODEL=$model,_REVISION=$revision"
  if [[ -n ${LAUNCHER:-} ]]; then values+=",_LAUNCHER=$LAUNCHER"; fi
  local args=(builds submit . "--project=$PROJECT" "--region=$REGION"
    --config=templates/flex/cloudbuild.yaml --ignore-file=templates/flex/Dockerfile.dockerignore
    "--substitutions=$values" "--gcs-source-staging-dir=gs://$BUCKET/build" "--gcs-log-dir=gs://$BUCKET/build/logs")
  if [[ -n ${BUILD_SERVICE_ACCOUNT:-} ]]; then
    args+=("--service-account=projects/$PROJECT/serviceAccounts/$BUILD_SERVICE_ACCOUNT")
  fi
  execute gcloud "${args[@]}"
  # The spec after the push, which Cloud Build does last, so that no template names an image that is not there.
  # gcloud copies name, description and parameters of the metadata and leaves out the streaming modes (528.0.0,
  # api_lib/dataflow/apis.py, _BuildTemplateMetadata): so every launch below says its mode.
  execute gcloud dataflow flex-template build "$(template)" "--project=$PROJECT" "--image=$(image)" \
    --sdk-language=PYTHON --metadata-file=templates/flex/metadata.json
}

# What launch adds, beside the flags that it is given: arguments of gcloud, and experiments.
run() {
  local more=() experiments=''
  launch "$@"
}

update() {
  local more=(--update) experiments='' mapping
  mapping=$(python3 -c '
import json, sys
mapping = json.load(open("templates/flex/transform_name_mapping.json"))
print(sys.argv[1].join(f"{old}={new}" for old, new in mapping.items()))' "$SEPARATOR")
  if [[ -n $mapping ]]; then more+=("--transform-name-mappings=^$SEPARATOR^$mapping"); fi
  # https://cloud.google.com/dataflow/docs/guides/upgrade-guide
  case ${UPDATE:-in_place} in
    in_place) ;;
    stop_and_replace | parallel)
      experiments=",update_strategy_parallel_job_update,parallel_replace_job_max_stop_duration=${STOP_WITHIN:-30m}"
      if [[ $UPDATE == parallel ]]; then
        experiments+=",parallel_replace_job_min_parallel_pipelines_duration=${OVERLAP:-10m}"
      fi
      ;;
    *) fail "UPDATE=$UPDATE: use in_place, stop_and_replace or parallel" ;;
  esac
  launch "$@"
}

launch() {
  need BUCKET REPOSITORY WORKER_SERVICE_ACCOUNT
  local parameters options="disk_size_gb=${DISK_GB:-50}"
  local mode=${MODE:-exactly_once} machine=${MACHINE_TYPE:-n2-standard-4} flag
  parameters="sdk_container_image=${WORKER_IMAGE:-$(image)}"
  for flag in "$@"; do
    [[ $flag == --*=* ]] || fail "$flag: write flags as --name=value"
    flag=${flag#--}
    if declared "${flag%%=*}"; then
      parameters+="$SEPARATOR$flag"
    elif [[ $BEAM_FLAGS == *" ${flag%%=*} "* ]]; then
      options+="$SEPARATOR$flag"
    else
      fail "--$flag: no flag of the job, nor one of Beam that deploy.sh passes on"
    fi
  done
  if [[ -n ${ACCELERATOR:-} ]]; then
    [[ $VARIANT == gpu ]] || fail "ACCELERATOR=$ACCELERATOR needs VARIANT=gpu: the cpu image has no CUDA"
    if [[ -z ${MACHINE_TYPE:-} ]]; then
      [[ $ACCELERATOR == nvidia-l4 ]] || fail "ACCELERATOR=$ACCELERATOR: set MACHINE_TYPE to one that takes it"
      machine=g2-standard-8
    fi
    options+="${SEPARATOR}dataflow_service_options=worker_accelerator=type:$ACCELERATOR;count:1;"
    options+="install-nvidia-driver:${DRIVER:-5xx}"
  fi
  if [[ -n ${MIN_WORKERS:-} ]]; then options+="${SEPARATOR}dataflow_service_options=min_num_workers=$MIN_WORKERS"; fi
  if [[ -n ${UTILIZATION:-} ]]; then
    options+="${SEPARATOR}dataflow_service_options=worker_utilization_hint=$UTILIZATION"
  fi
  [[ $mode == exactly_once || $mode == at_least_once ]] || fail "MODE=$MODE: use exactly_once or at_least_once"
  local args=(dataflow flex-template run "$NAME" "--project=$PROJECT" "--region=$REGION"
    "--template-file-gcs-location=$(template)" "--service-account-email=$WORKER_SERVICE_ACCOUNT"
    "--staging-location=gs://$BUCKET/staging" "--temp-location=gs://$BUCKET/temp"
    "--worker-machine-type=$machine" "--max-workers=${MAX_WORKERS:-4}"
    "--launcher-machine-type=${LAUNCHER_MACHINE_TYPE:-n2-standard-2}"
    --enable-streaming-engine "--additional-experiments=streaming_mode_$mode$experiments"
    "--parameters=^$SEPARATOR^$parameters" "--additional-pipeline-options=^$SEPARATOR^$options")
  if [[ -n ${SUBNETWORK:-} ]]; then args+=("--subnetwork=$SUBNETWORK" --disable-public-ips); fi
  if [[ -n ${KMS_KEY:-} ]]; then args+=("--dataflow-kms-key=$KMS_KEY"); fi
  # Not "${more[@]}" alone: on bash 3.2 an empty array counts as unset, which set -u forbids.
  execute gcloud "${args[@]}" ${more[@]+"${more[@]}"}
}

# Whether the template takes a parameter of this name.
declared() { grep -q "^ *\"name\": \"$1\",\$" templates/flex/metadata.json; }

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
