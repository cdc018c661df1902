# check: one line for each thing the rollout relies on. "ok", "apply" (not as wanted; apply mends it), "note" (cannot be
# told from here), or "FAULT" with how to mend it, which is for a person to do.

command_check() {
  choose_image
  look_up_everything
  check_everything
  if ((FAULTS)); then
    say
    die "$FAULTS to mend by hand before the rollout (FAULT above)"
  fi
  say
  say "Nothing to mend by hand. What apply will do: $SELF plan"
}

check_everything() {
  FAULTS=0
  check_account
  check_cluster
  check_service
  check_present_revision
  check_sizes
  check_rest_target_group
  check_load_balancer
  check_a2a_target_group
  check_health_check
  check_client_addresses
  check_listener
  check_zones
  check_task_ingress
  check_load_balancer_ingress
  check_role execution_role "execution role" "$EXECUTION_ROLE"
  check_role task_role "task role" "$TASK_ROLE"
  check_service_linked_role
  check_secret
  check_permissions
  check_log_group
  check_repository
  check_image
  check_record
  check_alarms
}

line() { printf '%-6s %-20s %s\n' "$1" "$2" "$3"; }
ok() { line ok "$1" "$2"; }
will() { line apply "$1" "$2"; }
note() { line note "$1" "$2"; }
fault() {
  FAULTS=$((FAULTS + 1))
  line FAULT "$1" "$2"
  line "" "" "mend: $3"
}

# exists FACT SUBJECT NAME MEND: false, with the fault told, where the thing is absent or may not be looked at.
exists() {
  if refused "$1"; then
    fault "$2" "cannot look up $3: $(refusal "$1")" "ask for the right to make this call, or run where it is given"
  elif ! there "$1"; then
    fault "$2" "$3 does not exist in $REGION" "$4"
  else
    return 0
  fi
  return 1
}

# faults_of SUBJECT FACT FILTER [jq arguments...]: the filter gives a line for each fault, "what is wrong<tab>how to mend it". True
# where there is none.
faults_of() {
  local subject=$1 faults text mend
  shift
  faults=$(fact "$@")
  if [[ -z $faults ]]; then return; fi
  while IFS=$'\t' read -r text mend; do fault "$subject" "$text" "$mend"; done <<<"$faults"
  return 1
}

check_account() {
  ok "account" "$(fact identity '"\(.Account) in \($region), as \(.Arn)"' --arg region "$REGION")"
  # The AWS CLI checks what it sends against its own model, so an old one refuses the task definition.
  if aws ecs register-task-definition --generate-cli-skeleton input | jq -e '.containerDefinitions[0] | has("restartPolicy")' >/dev/null; then
    ok "AWS CLI" "knows restart policies"
  else
    fault "AWS CLI" "is too old to know a container's restartPolicy" "install version 2.17.30, 1.33.40 or later"
  fi
}

check_cluster() {
  exists cluster "cluster" "$CLUSTER" "check CLUSTER and REGION in the settings" || return 0
  if [[ $(fact cluster .status) == ACTIVE ]]; then
    ok "cluster" "$CLUSTER is ACTIVE"
  else
    fault "cluster" "$CLUSTER is $(fact cluster .status)" "check CLUSTER in the settings"
  fi
}

check_service() {
  exists service "service" "$SERVICE" "check SERVICE and CLUSTER in the settings" || return 0
  faults_of "service" service '
    .capacityProviderStrategy = [(.capacityProviderStrategy // [])[].capacityProvider]
    | (.deployments | map(select(.status == "PRIMARY")) | .[0]) as $primary
    | (if .status != "ACTIVE" then "\($name) is \(.status)\tcheck SERVICE in the settings" else empty end),
      (if .launchType == "FARGATE" or (.capacityProviderStrategy | . != [] and . - ["FARGATE", "FARGATE_SPOT"] == []) then empty
       else "\($name) runs on \(.launchType // "other capacity"), not on Fargate\tthe task definition is made for Fargate alone" end),
      (if (.deploymentController.type // "ECS") == "ECS" then empty
       else "\($name) is deployed by \(.deploymentController.type): its target groups cannot be changed by a service update\tmake a service with the ECS deployment controller" end),
      (if .networkConfiguration.awsvpcConfiguration then empty
       else "\($name) has no awsvpc network\tput the service into the VPC of the load balancer" end),
      (if .desiredCount > 0 then empty
       else "\($name) wants 0 tasks, so nothing can turn healthy\taws ecs update-service --cluster \($cluster) --service \($name) --desired-count 1" end),
      (if $unfinished then empty
       elif $primary.rolloutState == "FAILED"
       then "the deployment of \($primary.taskDefinition | split("/")[-1]) has failed: \($primary.rolloutStateReason)\tbring the service to a revision that works first: it is what is recorded as the way back"
       elif (.deployments | length) > 1
       then "a deployment of \(.taskDefinition | split("/")[-1]) is under way\twait for it: what is recorded as the way back must be a revision that has proven itself"
       else empty end)' \
    --arg name "$SERVICE" --arg cluster "$CLUSTER" --argjson unfinished "$(if record_unfinished; then say true; else say false; fi)" || return 0
  ok "service" "$SERVICE is ACTIVE on Fargate, $(fact service '"\(.runningCount) of \(.desiredCount)"') running"
  if (($(fact service .desiredCount) > 1)); then
    note "more than one task" "a call that lands on a task without its agent gets NOT_FOUND: docs/deploy.md, More than one task"
  fi
}

check_present_revision() {
  there service || return 0
  exists revision "present revision" "the one that $SERVICE runs" "update the service to a revision that exists" || return 0
  exists latest_revision "latest revision" "$TASK_FAMILY" "check TASK_FAMILY in the settings" || return 0
  faults_of "present revision" revision '
    "\(.family):\(.revision)" as $name | [.containerDefinitions[].name] as $containers
    | (if $containers | index("par") then empty
       else "\($name) has no container par, it has: \($containers | join(", "))\tdeploy PAR as container par first; its image and its own settings are taken from there" end),
      (if .family == $family then empty else "\($name) is not of family \($family)\tcheck TASK_FAMILY in the settings" end)' \
    --arg family "$TASK_FAMILY" || return 0
  ok "present revision" "$(fact revision '"\(.family):\(.revision) with \([.containerDefinitions[].name] | join(", "))"')"
}

# The pairs of CPU and memory that Fargate offers up to 4 vCPU.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#task_size
check_sizes() {
  local least most step
  case $TASK_CPU in
    256) least=512 most=2048 step=512 ;;
    512) least=1024 most=4096 step=1024 ;;
    1024) least=2048 most=8192 step=1024 ;;
    2048) least=4096 most=16384 step=1024 ;;
    4096) least=8192 most=30720 step=1024 ;;
    *)
      fault "sizes" "Fargate has no task of $TASK_CPU CPU units" "TASK_CPU is one of 256, 512, 1024, 2048, 4096"
      return 0
      ;;
  esac
  if ((TASK_MEMORY < least || TASK_MEMORY > most || TASK_MEMORY % step != 0)); then
    fault "sizes" "Fargate has no task of $TASK_CPU CPU units with $TASK_MEMORY MiB" "TASK_MEMORY is $least to $most in steps of $step"
  else
    ok "sizes" "task $TASK_CPU CPU units, $TASK_MEMORY MiB; of these envoy $ENVOY_CPU and $ENVOY_MEMORY"
  fi
}

check_log_group() {
  exists log_group "log group" "$LOG_GROUP" "aws logs create-log-group --region $REGION --log-group-name $LOG_GROUP" || return 0
  ok "log group" "$LOG_GROUP exists"
}

check_repository() {
  local changes
  if refused repository; then
    exists repository "repository" "$REPOSITORY" "" || return 0
  fi
  changes=$(plan_repository)
  if [[ -z $changes ]]; then
    ok "repository" "$REPOSITORY exists, scans on push, tags are immutable"
  else
    will "repository" "${changes//$'\n'/; }"
  fi
}

check_image() {
  if [[ -n $IMAGE ]]; then
    ok "image" "$IMAGE is taken as given"
  elif refused image; then
    exists image "image" "$REPOSITORY:$TAG" "" || return 0
  elif there image; then
    ok "image" "$REPOSITORY:$TAG is pushed"
  elif ! command -v "$CONTAINER_ENGINE" >/dev/null; then
    fault "image" "$REPOSITORY:$TAG is not pushed, and there is no $CONTAINER_ENGINE to build it with" \
      "install $CONTAINER_ENGINE, or push the image from elsewhere and pass --image"
  elif ! "$CONTAINER_ENGINE" version >/dev/null 2>&1; then
    fault "image" "$REPOSITORY:$TAG is not pushed, and $CONTAINER_ENGINE cannot build it now" \
      "see what \`$CONTAINER_ENGINE version\` says: is its service running, may you use it? Or push the image from elsewhere and pass --image"
  else
    will "image" "builds and pushes $REPOSITORY:$TAG with $CONTAINER_ENGINE"
  fi
}

check_record() {
  if refused record; then
    fault "record" "cannot read $RECORD_PARAMETER: $(refusal record)" \
      "ask for ssm:GetParameter and ssm:PutParameter on it; without a record there is no rollback"
  elif ! there record; then
    ok "record" "$RECORD_PARAMETER: nothing recorded yet"
  elif ! sound_record; then
    fault "record" "$RECORD_PARAMETER holds something else than a record of this script" \
      "name another parameter in RECORD_PARAMETER, or: aws ssm delete-parameter --region $REGION --name $RECORD_PARAMETER"
  elif record_unfinished; then
    note "record" "the rollout begun $(fact record .at) by $(fact record .by) is unfinished: apply goes on, rollback goes back to $(short_revision "$(fact record .taskDefinition)")"
  else
    ok "record" "$RECORD_PARAMETER: $(fact record .status) at $(fact record .at)"
  fi
}

check_alarms() {
  local things
  for things in alarms metric_filters; do
    if refused "$things"; then exists "$things" "alarms" "the ${things//_/ }" "" || return 0; fi
  done
  if [[ -z $ALARM_TOPIC ]]; then return; fi
  exists alarm_topic "alarm topic" "$ALARM_TOPIC" "aws sns create-topic --region $REGION --name $ALARM_TOPIC" || return 0
  ok "alarm topic" "$ALARM_TOPIC exists"
}
