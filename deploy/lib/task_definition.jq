# Task definitions: the template laid over the revision that runs, and the difference of two.

# What ECS adds to a definition and does not take back.
def registrable: del(.taskDefinitionArn, .revision, .status, .requiresAttributes, .compatibilities, .registeredAt, .registeredBy,
  .deregisteredAt, .deleteRequestedAt);

# Items of $over replace those of the input list that have the same $key; the rest of both stay.
def lay_list($over; $key): [.[] | select(.[$key] as $k | $over | map(.[$key]) | index([$k]) | not)] + $over;

def nonempty: with_entries(select(.value != null));

# One container over the one of that name that runs. A field that is null in the template is taken away.
# A name is either in the environment or a secret, never both, and a port belongs to one container of the task ($taken are Envoy's):
# ECS refuses what breaks that.
def lay_container($over; $taken):
  . as $base
  | . * ($over | del(.environment, .secrets, .portMappings, .mountPoints, .dependsOn))
  | .environment = ([$base.environment[]? | select(.name as $n | [$over.secrets[]?.name] | index($n) | not)]
      | lay_list($over.environment // []; "name"))
  | .secrets = ([$base.secrets[]? | select(.name as $n | [$over.environment[]?.name] | index($n) | not)]
      | lay_list($over.secrets // []; "name"))
  | .portMappings = ([$base.portMappings[]? | select(.containerPort as $p | $taken | index($p) | not)]
      | lay_list($over.portMappings // []; "containerPort"))
  | .mountPoints = (($base.mountPoints // []) | lay_list($over.mountPoints // []; "containerPath"))
  | .dependsOn = (($base.dependsOn // []) | lay_list($over.dependsOn // []; "containerName"))
  | nonempty;

# Envoy is this project's and replaced whole. Of PAR, of other containers and of the task itself, everything stays that the template
# does not name: PAR's image, its own variables and secrets, its volumes.
def overlay($template):
  registrable as $base
  | [$template.containerDefinitions[] | select(.name == "envoy") | .portMappings[].containerPort] as $taken
  | $base * ($template | del(.containerDefinitions, .volumes))
  | if .tags == [] then del(.tags) else . end
  | .volumes = (($base.volumes // []) | lay_list($template.volumes // []; "name"))
  | .containerDefinitions =
      [$template.containerDefinitions[]
        | . as $over
        | if .name == "envoy" then nonempty
          else first(($base.containerDefinitions[] | select(.name == $over.name)), {}) | lay_container($over; $taken) end]
      + [$base.containerDefinitions[] | select(.name as $n | [$template.containerDefinitions[].name] | index($n) | not)];

def named($key): map({ key: (.[$key] | tostring), value: del(.[$key]) }) | from_entries;

# Without nulls, empty lists and empty objects, which say nothing.
def spare: walk(if type == "object" then with_entries(select(.value | . != null and . != [] and . != {})) else . end);

# One form for what ECS writes in several: defaults filled in or left out, lists that have no order as objects.
def canonical:
  registrable
  | .containerDefinitions |= (map(
      (if .essential == null then .essential = true else . end)
      | if .cpu == 0 then del(.cpu) else . end
      | .environment = ((.environment // []) | named("name"))
      | .secrets = ((.secrets // []) | named("name"))
      | .portMappings = ((.portMappings // []) | map(del(.hostPort) | .protocol //= "tcp") | named("containerPort"))
      | .mountPoints = ((.mountPoints // []) | map(if .readOnly == false then del(.readOnly) else . end) | named("containerPath"))
      | .dependsOn = ((.dependsOn // []) | named("containerName"))
      | .ulimits = ((.ulimits // []) | named("name"))
    ) | named("name"))
  | .tags = ((.tags // []) | named("key"))
  | .volumes = ((.volumes // []) | map(.present = true) | named("name"))
  | spare;

def leaves: [paths(type != "object")] | map(select(all(.[]; type == "string")));

def shown: if . == null then "(none)" elif type == "string" then . else tojson end;

# Lines "path: before -> after" for every field that differs.
def changes($before; $after):
  ($before | canonical) as $is
  | ($after | canonical) as $wanted
  | (($is | leaves) + ($wanted | leaves)) | unique[]
  | . as $path
  | ($is | getpath($path)) as $old
  | ($wanted | getpath($path)) as $new
  | select($old != $new)
  | "\(map(if . == "containerDefinitions" then empty else . end) | join(".") | sub("\\.value$"; "")): \($old | shown) -> \($new | shown)";
