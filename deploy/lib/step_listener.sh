# Step: the load balancer listens on 50051 and forwards to the A2A target group.
#
# This comes before the service: ECS refuses a target group that no load balancer uses ("does not have an associated load balancer").

# The names of the target groups that the listener forwards to, or what else it does.
listener_targets() {
  fact listener '[.DefaultActions[] | if .Type == "forward"
    then (.TargetGroupArn // (.ForwardConfig.TargetGroups[].TargetGroupArn)) | split("/")[1] else .Type end] | join(", ")'
}

# Does it forward to the A2A target group and to no other?
listener_is_ours() {
  [[ $(fact listener '[.DefaultActions[] | .TargetGroupArn, .ForwardConfig.TargetGroups[]?.TargetGroupArn | values] | unique == [$arn]' \
    --arg arn "$(fact a2a .TargetGroupArn)") == true ]]
}

plan_listener() {
  if ! there listener; then
    say "$LOAD_BALANCER: create listener TCP $A2A_PORT -> $A2A_TARGET_GROUP"
  elif ! listener_is_ours; then
    say "$LOAD_BALANCER listener $A2A_PORT: $(listener_targets) -> $A2A_TARGET_GROUP (calls on it fail from here until the new tasks are healthy)"
  fi
}

apply_listener() {
  local action listener
  action="Type=forward,TargetGroupArn=$(fact a2a .TargetGroupArn)"
  if ! there listener; then
    aws elbv2 create-listener --load-balancer-arn "$(fact load_balancer .LoadBalancerArn)" --protocol TCP --port "$A2A_PORT" \
      --default-actions "$action" --query 'Listeners[0]' >"$FACTS/listener.json"
  else
    listener=$(fact listener .ListenerArn)
    aws elbv2 modify-listener --listener-arn "$listener" --default-actions "$action" --query 'Listeners[0]' >"$FACTS/listener.json"
  fi
}
