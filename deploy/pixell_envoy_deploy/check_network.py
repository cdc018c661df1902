"""Checks of the path from a client to the tasks: listeners, target groups, zones, security groups."""

from datetime import UTC, datetime
from ipaddress import IPv4Network

from . import form
from .aws import Doc
from .checks import Checks, Found, bad, note, ok
from .facts import address, leads, short
from .settings import A2A_PORT, ADMIN_PORT, REST_PORT

CROSS_ZONE = "load_balancing.cross_zone.enabled"


class Network(Checks):
    def load_balancer(self) -> Found:
        lb, name = self.f.load_balancer, self.s.load_balancer
        yield bad(lb["Type"] != "network", f"{name} is of type {lb['Type']}", "only a network load balancer passes TCP")
        yield bad(lb["State"]["Code"] != "active", f"{name} is {lb['State']['Code']}", "wait until it is active")
        yield ok(f"{name}, {lb['Scheme']}, {lb['DNSName']}")

    def target_groups(self) -> Found:
        f, live, fix = self.f, self.f.live, "this cannot be changed: create a new target group and name it in the settings"
        vpc = f.subnets[f.network["subnets"][0]]["VpcId"]
        for name, port, protocols in ((live.a2a, A2A_PORT, ["TCP"]), (live.rest, REST_PORT, ["HTTP", "HTTPS", "TCP", "TLS"])):
            f.group_arn(name)
            group: Doc = f.target_group(name) or {}
            for key, value in {"Port": port, "TargetType": "ip", "VpcId": vpc}.items():
                yield bad(group[key] != value, f"{name} has {key} {group[key]}, not {value}", fix)
            yield bad(group["Protocol"] not in protocols, f"{name} speaks {group['Protocol']}", fix)
        serving = [each["containerName"] for each in f.present["loadBalancers"] if short(each["targetGroupArn"]) == live.rest]
        yield bad(serving != ["par"], f"container par of {live.service} does not serve {live.rest}", "check rest_target_group in the settings")
        ours = {address(task) for slot in (f.blue, f.green) if f.service(slot.service) for task in f.tasks(slot.service)}
        foreign = sorted({each["Target"]["Id"] for name in (live.a2a, self.r.slot.a2a) for each in f.targets(name)} - ours)
        text = f"targets that are not tasks of the service get connections: {', '.join(foreign)}"
        yield bad(foreign, text, "aws elbv2 deregister-targets, which ends their connections")
        yield ok(f"{live.a2a} -> {A2A_PORT}, {live.rest} -> par:{REST_PORT}, only tasks of the service")

    def listeners(self) -> Found:
        f, s, listener, in_place = self.f, self.s, self.f.listener(A2A_PORT), self.r.in_place
        to = leads(listener)
        if listener is None:
            yield ok(f"{s.load_balancer} has none on {A2A_PORT}: {'apply' if in_place else 'shift'} creates it")
        else:
            text, modify = f"{A2A_PORT} speaks {listener['Protocol']}", f"aws elbv2 modify-listener --listener-arn {listener['ListenerArn']}"
            yield bad(listener["Protocol"] not in ("TCP", "TLS"), text, "it must speak TCP or TLS: find out who uses it")
            plain = listener["Protocol"] == "TLS" and not {"HTTP2Only", "HTTP2Preferred"} & set(listener.get("AlpnPolicy", []))
            yield bad(plain, f"{text} without ALPN for HTTP/2: gRPC clients give up", f"{modify} --alpn-policy HTTP2Preferred")
            yield bad(len(to) > 1, f"{A2A_PORT} leads to {len(to)} target groups", f"lead it to one of them: {modify}")
            yield ok(f"{text} and leads to {', '.join(to)}")
        for port, names in [(each["Port"], leads(each)) for each in f.listeners(f.balancer)]:
            if self.r.slot.a2a in names and port not in (A2A_PORT, s.test_port):
                yield note(f"port {port} leads to {self.r.slot.a2a} as well: its clients will reach Envoy")
            taken = port == s.test_port and not in_place and set(names) - {f.blue.a2a, f.green.a2a}
            yield bad(taken, f"port {port} leads to {', '.join(names)}", "choose another test_port in the settings")
        yield bad(not f.routes(f.live.rest), f"no listener leads to {f.live.rest}: PAC cannot reach PAR", "check rest_target_group in the settings")

    def certificate(self) -> Found:
        f, domain = self.f, self.s.certificate_domain
        if not domain:
            yield ok("no certificate_domain: listeners stay as they are, and new ones speak TCP")
            return
        found = form.certificate(f)
        days = (found["NotAfter"] - datetime.now(UTC)).days
        text = f"{found['CertificateArn']} for {domain}"
        yield bad(days < 7, f"{text} expires in {days} days", "renew it: ACM does so by itself while its DNS record is there")
        present, wanted = form.spoken(f.listener(A2A_PORT)), form.wanted(f)
        if present and wanted and present != wanted:
            yield note(f"{A2A_PORT} will speak {form.shown(wanted)}: clients that connect without TLS get no response any more")
        yield ok(f"{text}, for {days} days")

    def zones(self) -> Found:
        """Without cross-zone load balancing, the load balancer's DNS drops a zone if one target group has no healthy target in it. That
        affects all listeners. https://repost.aws/knowledge-center/elb-dns-cross-zone-balance-configuration"""
        f, enabled = self.f, {zone["ZoneName"] for zone in self.f.load_balancer["AvailabilityZones"]}
        outside = {f.subnets[each]["AvailabilityZone"] for each in f.network["subnets"]} - enabled
        text = f"tasks may run in {', '.join(sorted(outside))}, but {self.s.load_balancer} sends nothing there"
        yield bad(outside, text, "aws elbv2 set-subnets with a subnet of each zone of the service")
        everywhere = f.attributes(f.balancer).get(CROSS_ZONE, "")
        for name in sorted({name for listener in f.listeners(f.balancer) for name in leads(listener)} - {self.r.slot.a2a}):
            arn, targets = f.group_arn(name), f.targets(name)
            own = f.attributes(arn).get(CROSS_ZONE, "use_load_balancer_configuration")
            crosses = own.replace("use_load_balancer_configuration", everywhere) == "true"
            missing = enabled - {each["Target"].get("AvailabilityZone") for each in targets if each["TargetHealth"]["State"] == "healthy"}
            text = f"{name} has no healthy target in {', '.join(sorted(missing))} and does not cross zones: the DNS drops these for all ports"
            fix = f"aws elbv2 modify-target-group-attributes --target-group-arn {arn} --attributes Key={CROSS_ZONE},Value=true"
            yield bad(missing and not crosses, text, fix)
        yield ok(f"{', '.join(sorted(enabled))} are enabled and stay in the DNS")

    def security_groups(self) -> Found:
        """The load balancer connects and checks from its own addresses, unless the target group preserves client addresses."""
        f, s, groups, mine = self.f, self.s, self.f.load_balancer.get("SecurityGroups", []), self.f.network.get("securityGroups", [])
        add = f"aws ec2 authorize-security-group-{{}} --region {f.name} --group-id {{}} --protocol tcp --port {{}} {{}}"
        first = mine[0] if mine else "(the tasks' group)"
        subnets = [IPv4Network(f.subnets[zone["SubnetId"]]["CidrBlock"]) for zone in f.load_balancer["AvailabilityZones"]]
        source = f"--source-group {groups[0]}" if groups else f"--cidr {next(iter(subnets), '')} (and each other subnet of the load balancer)"
        # The health check of a fleet is on the admin port. The data path is the last one: what follows is about it alone.
        ports = [ADMIN_PORT, A2A_PORT] if s.fleet_directory else [A2A_PORT]
        for port in ports:
            rules = self._rules(mine, port)
            named = any(pair["GroupId"] in groups for rule in rules for pair in rule.get("UserIdGroupPairs", []))
            ranges = [IPv4Network(each["CidrIp"]) for rule in rules for each in rule.get("IpRanges", [])]
            shut = [] if named else [str(subnet) for subnet in subnets if not any(subnet.subnet_of(each) for each in ranges)]
            text = f"{', '.join(mine)} does not let {port} in from the load balancer ({', '.join(shut)})"
            listed = any(rule.get("PrefixListIds") for rule in rules)
            yield (note(f"{text}, unless its prefix list does") if shut and listed else bad(shut, text, add.format("ingress", first, port, source)))
        keeps, anyone = f.attributes(f.group_arn(f.live.a2a)).get("preserve_client_ip.enabled") == "true", any(x.prefixlen == 0 for x in ranges)
        text = f"{f.live.a2a} preserves client addresses, which no rule for {A2A_PORT} lets in"
        yield bad(keeps and not named and not anyone, text, "let clients in, or preserve_client_ip.enabled=false")
        doors = [(groups, port, "egress", f"--source-group {first}", "neither clients nor health checks reach a task") for port in ports]
        doors += [(mine, 443, "egress", "--cidr 0.0.0.0/0", "tasks get no image and no secret, and write no log")]
        doors += [(groups, A2A_PORT, "ingress", "--cidr (of the clients)", "clients do not reach the load balancer")]
        if not self.r.in_place:
            doors += [(groups, s.test_port, "ingress", "--cidr (of who calls verify)", "nobody can verify the new task")]
            for arn in sorted({each["LoadBalancerArn"] for each in f.routes(f.live.rest)}):
                found = f.all("elbv2", "describe_load_balancers", "LoadBalancers", LoadBalancerArns=[arn])[0]
                doors += [(found.get("SecurityGroups", []), s.rest_test_port, "ingress", "--cidr (of PAC)", "PAC does not reach PAR in the new task")]
        for some, port, direction, whom, then in [each for each in doors if each[0]]:
            text = f"{', '.join(some)} lets {'nothing out to' if direction == 'egress' else 'nobody in on'} {port}: {then}"
            yield bad(not self._rules(some, port, direction), text, add.format(direction, some[0], port, whom))
        yield ok(f"{A2A_PORT} comes in from the load balancer{', with client addresses' * keeps}, 443 goes out")
