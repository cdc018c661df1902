# Step: the service runs the wanted revision and registers its tasks with both target groups.

# The service's target groups as they should be: those of others stay, the two of this rollout are set.
wanted_load_balancers() {
  jq -nc --slurpfile service "$FACTS/service.json" --slurpfile rest "$FACTS/rest.json" --slurpfile a2a "$FACTS/a2a.json" \
    --argjson rest_port "$REST_PORT" --argjson a2a_port "$A2A_PORT" '
      [{targetGroupArn: $rest[0].TargetGroupArn, containerName: "par", containerPort: $rest_port},
       {targetGroupArn: $a2a[0].TargetGroupArn, containerName: "envoy", containerPort: $a2a_port}] as $ours
      | [$service[0].loadBalancers[] | select(.targetGroupArn as $arn | $ours | map(.targetGroupArn) | index($arn) | not)] + $ours
      | sort_by(.targetGroupArn)'
}

plan_service() { service_changes "${WANTED_REVISION:-(the new revision)}" "$(wanted_load_balancers)"; }
apply_service() { set_service "$WANTED_REVISION" "$(wanted_load_balancers)"; }

# service_changes REVISION LOAD-BALANCERS: serves the way back as well. A deployment that ECS has given up is not taken up again by
# itself, so the same revision is then deployed anew.
service_changes() {
  fact service '
    def deployment_failed: .deployments | any(.status == "PRIMARY" and .rolloutState == "FAILED");
    def shown: "\(.containerName):\(.containerPort) in \(.targetGroupArn | split("/")[1])";
    (if .taskDefinition == $revision then empty
     else "\(.serviceName).taskDefinition: \(.taskDefinition | split("/")[-1]) -> \($revision | split("/")[-1])" end),
    (if .taskDefinition == $revision and deployment_failed
     then "\(.serviceName).deployment: of \($revision | split("/")[-1]) has failed -> deployed anew" else empty end),
    (.serviceName as $name | [.loadBalancers[] | shown] as $is | [$wanted[] | shown] as $to
     | ("\($name).loadBalancers: (none) -> \($to - $is | .[])"), ("\($name).loadBalancers: \($is - $to | .[]) -> (none)"))
  ' --arg revision "$1" --argjson wanted "$2"
}

# set_service REVISION LOAD-BALANCERS
set_service() {
  aws ecs update-service --cluster "$CLUSTER" --service "$SERVICE" --task-definition "$1" --load-balancers "$2" \
    --force-new-deployment --query service >"$FACTS/service.json"
}
