# check, the network part: can a call get from the load balancer's port into the task?

# sound_target_group FACT SUBJECT PORT PROTOCOLS: what both target groups must be. PROTOCOLS is a regular expression.
sound_target_group() {
  faults_of "$2" "$1" '
    ($subnets[0] // [] | map(select(.SubnetId as $id | $service[0].networkConfiguration.awsvpcConfiguration.subnets // [] | index($id))) | .[0].VpcId) as $vpc
    | .TargetGroupName as $name
    | (if .Port == $port then empty
       else "\($name) has port \(.Port), not \($port)\ta target group\u0027s port is fixed: make a new one and name it in the settings" end),
      (if .Protocol | test("^(\($protocols))$") then empty
       else "\($name) speaks \(.Protocol), not \($protocols)\ta target group\u0027s protocol is fixed: make a new one and name it in the settings" end),
      (if .TargetType == "ip" then empty
       else "\($name) has targets of type \(.TargetType), not ip\tFargate tasks are registered by address: make a new one of type ip" end),
      (if $vpc == null or .VpcId == $vpc then empty
       else "\($name) is in \(.VpcId), the service in \($vpc)\tmake a target group in \($vpc) and name it in the settings" end)' \
    --argjson port "$3" --arg protocols "$4" "${AROUND[@]}"
}

# Other facts that a filter looks at, each as an array of one; those that could not be seen as an empty array.
around() {
  local name
  AROUND=()
  for name in "$@"; do
    if there "$name"; then AROUND+=(--slurpfile "$name" "$FACTS/$name.json"); else AROUND+=(--argjson "$name" '[]'); fi
  done
}

check_rest_target_group() {
  exists rest "REST target group" "$REST_TARGET_GROUP" "check REST_TARGET_GROUP in the settings" || return 0
  around service subnets
  sound_target_group rest "REST target group" "$REST_PORT" 'HTTP|HTTPS|TCP|TLS' || return 0
  faults_of "REST target group" rest '.TargetGroupArn as $arn
    | if $service == [] or ($service[0].loadBalancers | any(.targetGroupArn == $arn and .containerName == "par")) then empty
      else "\(.TargetGroupName) is not what the service\u0027s container par answers on\tcheck REST_TARGET_GROUP in the settings; the service has: \(
        [$service[0].loadBalancers[] | "\(.containerName):\(.containerPort) in \(.targetGroupArn | split("/")[1])"] | join(", "))" end' \
    "${AROUND[@]}" || return 0
  ok "REST target group" "$REST_TARGET_GROUP -> par:$REST_PORT"
}

check_load_balancer() {
  exists load_balancer "load balancer" "$LOAD_BALANCER" "check LOAD_BALANCER in the settings" || return 0
  around a2a
  faults_of "load balancer" load_balancer '.LoadBalancerName as $name
    | (if .Type == "network" then empty else "\($name) is of type \(.Type), not network\tonly a network load balancer passes TCP: check LOAD_BALANCER" end),
      (if .State.Code == "active" then empty else "\($name) is \(.State.Code)\twait until it is active, or see in the console why it is not" end),
      (if $a2a == [] or $a2a[0].VpcId == .VpcId then empty
       else "\($name) is in \(.VpcId), \($a2a[0].TargetGroupName) in \($a2a[0].VpcId)\tboth must be in one VPC" end)' "${AROUND[@]}" || return 0
  ok "load balancer" "$(fact load_balancer '"\(.LoadBalancerName), \(.Scheme), \(.DNSName)"')"
}

check_a2a_target_group() {
  exists a2a "A2A target group" "$A2A_TARGET_GROUP" "check A2A_TARGET_GROUP in the settings" || return 0
  around service subnets
  sound_target_group a2a "A2A target group" "$A2A_PORT" TCP || return 0
  ok "A2A target group" "$A2A_TARGET_GROUP, TCP $A2A_PORT, in $(fact a2a .VpcId)"
}

check_health_check() {
  local changes
  there a2a || return 0
  changes=$(plan_health_check)
  if [[ -z $changes ]]; then
    ok "A2A health check" "TCP on the traffic port every ${WANTED_INTERVAL}s"
  else
    will "A2A health check" "is $(fact a2a '"\(.HealthCheckProtocol) on \(.HealthCheckPort)\(.HealthCheckPath // "" | if . == "" then . else " at \(.)" end)"'), apply sets TCP"
  fi
}

check_listener() {
  there load_balancer || return 0
  if refused listener; then
    exists listener "listener" "$A2A_PORT" "" || return 0
  elif ! there listener; then
    will "listener" "$LOAD_BALANCER has none on $A2A_PORT, apply makes it"
  elif [[ $(fact listener .Protocol) != TCP ]]; then
    fault "listener" "the one on $A2A_PORT speaks $(fact listener .Protocol), not TCP" \
      "find out who uses it, then: aws elbv2 delete-listener --listener-arn $(fact listener .ListenerArn)"
  elif [[ -z $(plan_listener) ]]; then
    ok "listener" "TCP $A2A_PORT -> $A2A_TARGET_GROUP"
  else
    will "listener" "$A2A_PORT forwards to $(listener_targets), apply points it at $A2A_TARGET_GROUP"
  fi
}

# A target in a zone in which the load balancer has no foot is never used (its state is then `unused`).
check_zones() {
  local missing
  there load_balancer && there service || return 0
  exists subnets "zones" "a subnet of the service or the load balancer" "mend the service's network configuration" || return 0
  missing=$(fact subnets '
    map(select(.SubnetId as $id | $service[0].networkConfiguration.awsvpcConfiguration.subnets | index($id)) | .AvailabilityZone)
    - ($lb[0].AvailabilityZones | map(.ZoneName)) | unique | join(", ")' \
    --slurpfile service "$FACTS/service.json" --slurpfile lb "$FACTS/load_balancer.json")
  if [[ -n $missing ]]; then
    fault "zones" "tasks may run in $missing, where $LOAD_BALANCER is not enabled: it never sends them a call" \
      "aws elbv2 set-subnets --load-balancer-arn $(fact load_balancer .LoadBalancerArn) --subnets (its subnets and one in $missing)"
  else
    ok "zones" "every zone of the service is enabled for $LOAD_BALANCER"
  fi
}

# The load balancer opens its own connections to the tasks, from its addresses, and checks their health from there. So a rule must
# name its security group, or ranges that hold its subnets.
check_task_ingress() {
  local verdict group
  there load_balancer && there service && there subnets || return 0
  exists security_groups "security group" "one of the service or the load balancer" "mend the service's network configuration" || return 0
  verdict=$(jq -nr -f "$DEPLOY/lib/ingress.jq" --argjson port "$A2A_PORT" --slurpfile service "$FACTS/service.json" \
    --slurpfile lb "$FACTS/load_balancer.json" --slurpfile subnets "$FACTS/subnets.json" --slurpfile groups "$FACTS/security_groups.json")
  group=$(fact service '.networkConfiguration.awsvpcConfiguration.securityGroups[0]')
  if [[ $verdict == open* ]]; then
    ok "security group" "$group lets $A2A_PORT in from the load balancer (${verdict#open })"
  else
    fault "security group" "$group does not let $A2A_PORT in from the load balancer (${verdict#closed })" \
      "aws ec2 authorize-security-group-ingress --region $REGION --group-id $group --protocol tcp --port $A2A_PORT $(load_balancer_side)"
  fi
}

# The load balancer's side as arguments of authorize-security-group-ingress.
load_balancer_side() {
  if [[ $(fact load_balancer '.SecurityGroups // [] | length') != 0 ]]; then
    printf -- '--source-group %s' "$(fact load_balancer '.SecurityGroups[0]')"
  else
    fact subnets '"--cidr \(map(select(.SubnetId as $id | $lb[0].AvailabilityZones | map(.SubnetId) | index($id))) | .[0].CidrBlock) (once for each of its subnets)"' \
      --slurpfile lb "$FACTS/load_balancer.json"
  fi
}

# A network load balancer may have security groups of its own; then they decide who may call at all.
check_load_balancer_ingress() {
  local open
  there load_balancer && there security_groups || return 0
  if [[ $(fact load_balancer '.SecurityGroups // [] | length') == 0 ]]; then return; fi
  open=$(fact security_groups 'map(select(.GroupId as $id | $lb[0].SecurityGroups | index($id)) | .IpPermissions[]
    | select(.IpProtocol == "-1" or (.IpProtocol == "tcp" and .FromPort <= $port and .ToPort >= $port))) | length' \
    --slurpfile lb "$FACTS/load_balancer.json" --argjson port "$A2A_PORT")
  if ((open)); then
    ok "callers" "the load balancer's own security group lets $A2A_PORT in"
  else
    fault "callers" "the load balancer's own security group lets nobody in on $A2A_PORT" \
      "aws ec2 authorize-security-group-ingress --region $REGION --group-id $(fact load_balancer '.SecurityGroups[0]') --protocol tcp --port $A2A_PORT --cidr (the callers' range)"
  fi
}

# With client addresses preserved, the task sees the callers' addresses and not the load balancer's: a rule for its subnets is then
# not enough.
check_client_addresses() {
  there a2a || return 0
  if refused keeps_client_addresses; then
    exists keeps_client_addresses "client addresses" "the attributes of $A2A_TARGET_GROUP" "" || return 0
  elif [[ $(<"$FACTS/keeps_client_addresses.json") == '"true"' ]]; then
    note "client addresses" "$A2A_TARGET_GROUP preserves them: the tasks' security group must let the callers' ranges in as well, or name the load balancer's security group"
  else
    ok "client addresses" "not preserved: the tasks see the load balancer's"
  fi
}
