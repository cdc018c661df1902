# Step: the CloudWatch alarms of deploy/alarms.json, and the metric filters on Envoy's log that two of them read. Only with --alarms.

# Every name of ours begins so, and only such names are ever touched.
alarm_prefix() { say "pixell-envoy-$SERVICE-"; }

# Renders into $WORK/alarms.json.
render_alarms() {
  local values
  values=$(jq -n '$ARGS.named' --arg SERVICE "$SERVICE" --arg LOG_GROUP "$LOG_GROUP" --arg ALARM_PREFIX "$(alarm_prefix)" \
    --arg ALARM_REJECTED_PER_5_MINUTES "$ALARM_REJECTED_PER_5_MINUTES" \
    --arg LOAD_BALANCER_DIMENSION "$(fact load_balancer '.LoadBalancerArn | sub("^.*:loadbalancer/"; "")')" \
    --arg A2A_TARGET_GROUP_DIMENSION "$(fact a2a '.TargetGroupArn | sub("^.*:targetgroup/"; "targetgroup/")')")
  jq --argjson values "$values" -f "$DEPLOY/lib/fill.jq" "$DEPLOY/alarms.json" >"$WORK/alarms.json"
  if [[ -n $ALARM_TOPIC ]]; then
    jq --arg topic "$(fact alarm_topic .)" '.alarms[] += {AlarmActions: [$topic], OKActions: [$topic]}' "$WORK/alarms.json" >"$WORK/answer"
    mv "$WORK/answer" "$WORK/alarms.json"
  fi
}

# The wanted ones that are not there, or are there with other values in a field we set: one JSON object a line.
missing_filters() { missing_of metricFilters filterName metric_filters; }
missing_alarms() { missing_of alarms AlarmName alarms; }
missing_of() {
  jq -c --slurpfile there "$FACTS/$3.json" '.'"$1"'[] | . as $wanted
    | (($there[0] // []) | map(select(.'"$2"' == $wanted.'"$2"')) | .[0]) as $is
    | select($wanted | to_entries | all(.value == $is[.key]) | not)' "$WORK/alarms.json"
}

plan_alarms() {
  if [[ -z $ALARMS ]]; then return; fi
  render_alarms
  missing_filters | jq -r '"metric filter \(.filterName) on \(.logGroupName): \(.filterPattern)"'
  missing_alarms | jq -r '"alarm \(.AlarmName): \(.Statistic) of \(.MetricName) \(.ComparisonOperator) \(.Threshold) in \(.Period) s\(if .AlarmActions then ", tells \(.AlarmActions[0] | split(":")[-1])" else ", tells nobody (ALARM_TOPIC is empty)" end)"'
}

apply_alarms() {
  local requests request
  mapfile -t requests < <(missing_filters)
  for request in "${requests[@]}"; do aws logs put-metric-filter --cli-input-json "$request"; done
  mapfile -t requests < <(missing_alarms)
  for request in "${requests[@]}"; do aws cloudwatch put-metric-alarm --cli-input-json "$request"; done
}

# The way back: takes away what was not there when the record was written.
plan_alarms_back() {
  fact alarms 'map(.AlarmName) - $before | .[] | "alarm \(.): delete"' --argjson before "$(fact record .alarms)"
  fact metric_filters '(. // []) | map(.filterName) - $before | .[] | "metric filter \(.): delete"' --argjson before "$(fact record .filters)"
}

apply_alarms_back() {
  local names name
  mapfile -t names < <(fact alarms 'map(.AlarmName) - $before | .[]' --argjson before "$(fact record .alarms)")
  if ((${#names[@]})); then aws cloudwatch delete-alarms --alarm-names "${names[@]}"; fi
  mapfile -t names < <(fact metric_filters '(. // []) | map(.filterName) - $before | .[]' --argjson before "$(fact record .filters)")
  for name in "${names[@]}"; do
    aws logs delete-metric-filter --log-group-name "$LOG_GROUP" --filter-name "$name"
  done
}
