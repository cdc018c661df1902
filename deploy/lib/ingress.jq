# May the load balancer reach the tasks on $port? Answers "open (why)" or "closed (why)".
# In: $service, $lb, $subnets, $groups, each an array of one fact.

# An IPv4 address as a number, and whether range $outer holds all of $inner.
def number: split(".") | map(tonumber) | .[0] * 16777216 + .[1] * 65536 + .[2] * 256 + .[3];
def range: split("/") | { first: (.[0] | number), size: pow(2; 32 - (.[1] | tonumber)) } | .first -= .first % .size;
def holds($inner): range as $o | ($inner | range) as $i
  | $o.first <= $i.first and $i.first + $i.size <= $o.first + $o.size;

$service[0].networkConfiguration.awsvpcConfiguration.securityGroups as $task_groups
| ($lb[0].SecurityGroups // []) as $lb_groups
| [$lb[0].AvailabilityZones[].SubnetId] as $lb_subnets
| [$subnets[0][] | select(.SubnetId as $id | $lb_subnets | index($id)) | .CidrBlock] as $lb_ranges
| [$groups[0][] | select(.GroupId as $id | $task_groups | index($id)) | .IpPermissions[]
   | select(.IpProtocol == "-1" or (.IpProtocol == "tcp" and .FromPort <= $port and .ToPort >= $port))] as $rules
| [$rules[].UserIdGroupPairs[]?.GroupId | select(. as $id | $lb_groups | index($id))] as $by_group
| [$rules[].IpRanges[]?.CidrIp] as $open
| [$lb_ranges[] | select(. as $inner | any($open[]; holds($inner)) | not)] as $shut
| if ($by_group | length) > 0 then "open by its security group \($by_group[0])"
  elif ($lb_ranges | length) > 0 and ($shut | length) == 0 then "open to its subnets \($lb_ranges | join(", "))"
  elif ($rules | length) == 0 then "closed no rule for that port"
  elif ([$rules[].PrefixListIds[]?] | length) > 0 then "closed as far as can be told: a rule names a prefix list"
  else "closed the rules leave out its subnets \($shut | join(", "))" end
