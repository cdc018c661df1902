# Step: the A2A target group asks Envoy's own port for a TCP connection, and nothing else. Envoy accepts one as soon as it can
# serve; whether an agent is there is not the load balancer's question.

readonly WANTED_INTERVAL=30
readonly WANTED_HEALTH_CHECK='{
  "HealthCheckProtocol": "TCP",
  "HealthCheckPort": "traffic-port",
  "HealthCheckIntervalSeconds": '$WANTED_INTERVAL',
  "HealthCheckTimeoutSeconds": 10,
  "HealthyThresholdCount": 2,
  "UnhealthyThresholdCount": 3
}'

plan_health_check() { health_check_changes "$WANTED_HEALTH_CHECK"; }
apply_health_check() { set_health_check "$WANTED_HEALTH_CHECK"; }

# The two below serve the way back as well: there the wanted health check is the recorded one.

health_check_changes() {
  fact a2a '. as $is | $wanted | to_entries[] | select($is[.key] != .value)
    | "\($name).\(.key): \($is[.key] | if . == null then "(none)" elif type == "string" then . else tojson end) -> \(.value | if type == "string" then . else tojson end)"' \
    --arg name "$A2A_TARGET_GROUP" --argjson wanted "$1"
}

set_health_check() {
  local request
  request=$(jq -c --arg arn "$(fact a2a .TargetGroupArn)" '. + {TargetGroupArn: $arn}' <<<"$1")
  aws elbv2 modify-target-group --cli-input-json "$request" --query 'TargetGroups[0]' >"$FACTS/a2a.json"
}

# What of a target group is its health check, for the record. Path and matcher mean something to HTTP alone.
health_check_fields() {
  fact a2a '{HealthCheckProtocol, HealthCheckPort, HealthCheckIntervalSeconds, HealthCheckTimeoutSeconds, HealthyThresholdCount,
    UnhealthyThresholdCount} + (if .HealthCheckProtocol == "TCP" then {} else {HealthCheckPath, Matcher} end)
    | with_entries(select(.value != null))'
}
