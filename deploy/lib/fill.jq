# Puts $values into a template: ${NAME} inside a string, or "${NAME|number}" as a whole value that has to be a number.
# A name that has no value is a fault of the template.

def value($name): $values[$name] // error("the template names \($name), which has no value");

walk(
  if type != "string" then .
  elif test("^\\$\\{[A-Z0-9_]+\\|number\\}$") then value(capture("\\{(?<name>[A-Z0-9_]+)").name) | tonumber
  else gsub("\\$\\{(?<name>[A-Z0-9_]+)\\}"; value(.name))
  end
)
