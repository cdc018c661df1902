# check, the rights part: the roles, the secret, and whether the execution role may read what a task needs to start.

check_role() {
  exists "$1" "$2" "$3" "make the role, or name the right one in the settings" || return 0
  if [[ $(fact "$1" '.AssumeRolePolicyDocument | tostring | contains("ecs-tasks.amazonaws.com")') == true ]]; then
    ok "$2" "$3 may be taken on by ECS tasks"
  else
    fault "$2" "$3 may not be taken on by ECS tasks" \
      "add Principal {\"Service\": \"ecs-tasks.amazonaws.com\"}, Action sts:AssumeRole to its trust policy: aws iam update-assume-role-policy --role-name $3 --policy-document ..."
  fi
}

# ECS changes the target groups of a service by this role alone.
check_service_linked_role() {
  exists service_linked_role "service-linked role" AWSServiceRoleForECS \
    "aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com" || return 0
  ok "service-linked role" "AWSServiceRoleForECS exists"
}

check_secret() {
  exists secret "admin token" "secret $ADMIN_TOKEN_SECRET" \
    "aws secretsmanager create-secret --region $REGION --name $ADMIN_TOKEN_SECRET --secret-string \"\$(openssl rand -hex 32)\"" || return 0
  if [[ $(fact secret '.DeletedDate // ""') != "" ]]; then
    fault "admin token" "secret $ADMIN_TOKEN_SECRET is marked for deletion" \
      "aws secretsmanager restore-secret --region $REGION --secret-id $ADMIN_TOKEN_SECRET"
  else
    ok "admin token" "secret $ADMIN_TOKEN_SECRET exists"
  fi
}

# What a task needs to start: the secret, the image, its log. The right to log in to the registry is needed on no single thing.
readonly LOG_IN=ecr:GetAuthorizationToken
readonly PULL_ACTIONS=(secretsmanager:GetSecretValue "$LOG_IN" ecr:BatchCheckLayerAvailability ecr:GetDownloadUrlForLayer
  ecr:BatchGetImage logs:CreateLogStream logs:PutLogEvents)

# The things these rights are needed on. The repository may be one that apply has yet to make: its name tells what it will be.
permission_resources() {
  printf '*\n'
  if there secret; then fact secret .ARN; fi
  # shellcheck disable=SC2016 # the names are jq's
  fact execution_role '.Arn | split(":") | [.[0], .[1], "ecr", $region, .[4], "repository/" + $name] | join(":")' \
    --arg region "$REGION" --arg name "$REPOSITORY"
  if there log_group; then printf '%s:*\n' "$(fact log_group '.arn | sub(":\\*$"; "")')"; fi
}

check_permissions() {
  local action resource decision decisions key
  there execution_role || return 0
  if refused permissions; then
    note "execution role" "cannot tell whether it may read the secret, the image and write logs: $(refusal permissions)"
    return
  fi
  # One right on the thing it is needed on, a line: the answer holds every right on every thing.
  decisions=$(fact permissions '.[] | select(if .EvalActionName == $log_in then .EvalResourceName == "*" else
    (.EvalActionName | split(":")[0]) == (.EvalResourceName | split(":")[2]) end)
    | [.EvalActionName, .EvalResourceName, .EvalDecision] | @tsv' --arg log_in "$LOG_IN")
  while IFS=$'\t' read -r action resource decision; do
    if [[ -z $action ]]; then continue; fi
    if [[ $decision == allowed ]]; then
      ok "execution role" "may $action"
    else
      fault "execution role" "$EXECUTION_ROLE may not $action ($decision)" \
        "aws iam put-role-policy --role-name $EXECUTION_ROLE --policy-name pixell-envoy-${action#*:} --policy-document '{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"$action\",\"Resource\":\"$resource\"}]}'"
    fi
  done <<<"$decisions"

  key=$(if there secret; then fact secret '.KmsKeyId // "" | if . == "alias/aws/secretsmanager" then "" else . end'; fi)
  if [[ -n $key ]]; then
    note "execution role" "the secret is encrypted with key $key: it also needs kms:Decrypt on that key"
  fi
}
