# Facts: what AWS says is there now, each looked up by its name and kept as one JSON file in $FACTS.
# A thing that does not exist is the JSON value null. A look-up that was refused leaves its error in $FACTS/<name>.err instead.

# The ports of the contract: Envoy's data path and admin, PAR's REST API.
readonly A2A_PORT=50051 ADMIN_PORT=9901 REST_PORT=8080

# look NAME ABSENT QUERY aws-arguments...
#   NAME    of the fact
#   ABSENT  the error codes (an extended regular expression) that mean "there is none"
#   QUERY   what takes the thing out of the answer (the CLI's --query, a JMESPath)
look() {
  local name=$1 absent=$2 query=$3
  shift 3
  if aws "$@" --query "$query" >"$FACTS/$name.answer" 2>"$FACTS/$name.err"; then
    mv "$FACTS/$name.answer" "$FACTS/$name.json"
    rm "$FACTS/$name.err"
  elif grep -qE "\(($absent)\)" "$FACTS/$name.err"; then
    echo null >"$FACTS/$name.json"
    rm "$FACTS/$name.err"
  else
    rm -f "$FACTS/$name.json"
  fi
}

# fact NAME FILTER [jq arguments...]: reads a fact; strings come out raw.
fact() {
  local name=$1 filter=$2
  shift 2
  [[ -r $FACTS/$name.json ]] || die "cannot look up $name: $(refusal "$name")"
  jq -r "$@" "$filter" "$FACTS/$name.json"
}

# Does the thing exist?
there() { [[ -r $FACTS/$1.json && $(<"$FACTS/$1.json") != null ]]; }

# Was the look-up itself refused?
refused() { [[ ! -r $FACTS/$1.json ]]; }

# Why it was, in one line.
refusal() { if [[ -r $FACTS/$1.err ]]; then tr -s "[:space:]" " " <"$FACTS/$1.err" | sed "s/^ *//; s/ *$//"; fi; }

# A revision with its tags as one thing, the way it is registered.
readonly REVISION_FIELDS='merge(taskDefinition, {tags: tags || `[]`})'

# require_facts: no plan is made on what could not be seen. The rights are only reported, by check.
require_facts() {
  local error name
  for error in "$FACTS"/*.err; do
    name=$(basename "$error" .err)
    if [[ -e $error && $name != permissions ]]; then die "cannot look up $name: $(refusal "$name")"; fi
  done
}

# require_things NAME...: what a command cannot do without, where it does not stop at every fault.
require_things() {
  local name
  for name in "$@"; do
    there "$name" || die "there is no $(thing "$name")" "$SELF check says more"
  done
}

# What a person calls the thing that a fact is about.
thing() {
  case $1 in
    a2a | rest) say "target group of ${1^^}" ;;
    secret) say "secret $ADMIN_TOKEN_SECRET" ;;
    *) say "${1//_/ }" ;;
  esac
}

# Every fact of the rollout. Look-ups that do not need each other's answers run side by side.
look_up_everything() {
  # Alone and first: with no or expired credentials all the others would fail in the same way.
  look identity none @ sts get-caller-identity
  if refused identity; then refuse_identity "$(refusal identity)"; fi
  look_up_names
  look_up_what_they_lead_to
}

refuse_identity() {
  case $1 in
    *onnect*endpoint* | *imeout* | *"timed out"* | *"SSL validation"* | *proxy*)
      die "AWS cannot be reached: $1" "is there a way to it from here (VPN, proxy), and is REGION $REGION a region?"
      ;;
    *) die "AWS does not accept the credentials: $1" "log in, or set AWS_PROFILE to a profile that may see the account" ;;
  esac
}

look_up_names() {
  look cluster ClusterNotFoundException 'clusters[0]' ecs describe-clusters --clusters "$CLUSTER" &
  look service 'ClusterNotFoundException|ServiceNotFoundException' 'services[0]' \
    ecs describe-services --cluster "$CLUSTER" --services "$SERVICE" &
  look load_balancer LoadBalancerNotFound 'LoadBalancers[0]' elbv2 describe-load-balancers --names "$LOAD_BALANCER" &
  look a2a TargetGroupNotFound 'TargetGroups[0]' elbv2 describe-target-groups --names "$A2A_TARGET_GROUP" &
  look rest TargetGroupNotFound 'TargetGroups[0]' elbv2 describe-target-groups --names "$REST_TARGET_GROUP" &
  look execution_role NoSuchEntity Role iam get-role --role-name "$EXECUTION_ROLE" &
  look task_role NoSuchEntity Role iam get-role --role-name "$TASK_ROLE" &
  look service_linked_role NoSuchEntity Role iam get-role --role-name AWSServiceRoleForECS &
  look log_group ResourceNotFoundException "logGroups[?logGroupName=='$LOG_GROUP'] | [0]" \
    logs describe-log-groups --log-group-name-prefix "$LOG_GROUP" &
  look repository RepositoryNotFoundException 'repositories[0]' ecr describe-repositories --repository-names "$REPOSITORY" &
  look secret ResourceNotFoundException @ secretsmanager describe-secret --secret-id "$ADMIN_TOKEN_SECRET" &
  # The value is JSON itself, so as text it is the record.
  look record ParameterNotFound Parameter.Value ssm get-parameter --name "$RECORD_PARAMETER" --output text &
  look latest_revision ClientException "$REVISION_FIELDS" ecs describe-task-definition --include TAGS --task-definition "$TASK_FAMILY" &
  look alarms none MetricAlarms cloudwatch describe-alarms --alarm-name-prefix "$(alarm_prefix)" &
  look metric_filters ResourceNotFoundException metricFilters \
    logs describe-metric-filters --log-group-name "$LOG_GROUP" --filter-name-prefix "$(alarm_prefix)" &
  wait
}

# Needs the answers of look_up_names.
look_up_what_they_lead_to() {
  local subnets groups resources
  if there service; then
    look revision ClientException "$REVISION_FIELDS" \
      ecs describe-task-definition --include TAGS --task-definition "$(fact service .taskDefinition)" &
  fi
  if there load_balancer; then
    look listener none "Listeners[?Port==\`$A2A_PORT\`] | [0]" \
      elbv2 describe-listeners --load-balancer-arn "$(fact load_balancer .LoadBalancerArn)" &
  fi
  if there a2a; then
    look keeps_client_addresses none "Attributes[?Key=='preserve_client_ip.enabled'].Value | [0]" \
      elbv2 describe-target-group-attributes --target-group-arn "$(fact a2a .TargetGroupArn)" &
  fi
  if there service && there load_balancer; then
    mapfile -t subnets < <(jq -rs '(.[0].networkConfiguration.awsvpcConfiguration.subnets // [])
      + (.[1].AvailabilityZones | map(.SubnetId // empty)) | unique[]' "$FACTS/service.json" "$FACTS/load_balancer.json")
    mapfile -t groups < <(jq -rs '(.[0].networkConfiguration.awsvpcConfiguration.securityGroups // [])
      + (.[1].SecurityGroups // []) | unique[]' "$FACTS/service.json" "$FACTS/load_balancer.json")
    look subnets 'InvalidSubnetID.NotFound' Subnets ec2 describe-subnets --subnet-ids "${subnets[@]}" &
    look security_groups 'InvalidGroup.NotFound' SecurityGroups ec2 describe-security-groups --group-ids "${groups[@]}" &
  fi
  if there execution_role; then
    mapfile -t resources < <(permission_resources)
    look permissions none EvaluationResults iam simulate-principal-policy \
      --policy-source-arn "$(fact execution_role .Arn)" --action-names "${PULL_ACTIONS[@]}" --resource-arns "${resources[@]}" &
  fi
  if [[ -n $ALARM_TOPIC ]]; then
    look alarm_topic none "Topics[?ends_with(TopicArn, ':$ALARM_TOPIC')].TopicArn | [0]" sns list-topics &
  fi
  if [[ -n $TAG ]]; then
    look image 'RepositoryNotFoundException|ImageNotFoundException' 'imageDetails[0]' \
      ecr describe-images --repository-name "$REPOSITORY" --image-ids "imageTag=$TAG" &
  fi
  wait
}
