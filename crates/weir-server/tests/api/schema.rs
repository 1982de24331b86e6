//! As much of JSON Schema as weir's own document uses. What it does not know is a failure, so that
//! the document cannot outgrow the test unseen.

use serde_json::Value;

/// Words that say nothing about what is valid, or that need no check here.
const WORDS: [&str; 8] =
    ["description", "example", "examples", "default", "format", "title", "pattern", "uniqueItems"];

/// Why `value` does not match `schema`; `None` where it does.
pub(crate) fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let check = Check { document };
    check.value(schema, value, "").err()
}

struct Check<'a> {
    document: &'a Value,
}

impl Check<'_> {
    fn value(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        for (word, argument) in schema.as_object().unwrap() {
            let matches = match word.as_str() {
                "$ref" => {
                    let pointer = argument.as_str().unwrap().strip_prefix('#').unwrap();
                    let target = self.document.pointer(pointer);
                    let target = target.unwrap_or_else(|| panic!("{pointer} leads nowhere"));
                    self.value(target, value, at)?;
                    true
                }
                "type" => match argument {
                    Value::Array(types) => types.iter().any(|name| is_a(value, name)),
                    name => is_a(value, name),
                },
                "enum" => argument.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|n| n >= argument.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|n| n <= argument.as_f64().unwrap()),
                "maxLength" => {
                    let max = argument.as_u64().unwrap();
                    value.as_str().is_none_or(|text| text.chars().count() as u64 <= max)
                }
                "oneOf" => {
                    let fits = |schema| self.value(schema, value, at).is_ok();
                    argument.as_array().unwrap().iter().filter(|schema| fits(schema)).count() == 1
                }
                "required" => argument.as_array().unwrap().iter().all(|name| {
                    value.as_object().is_none_or(|map| map.contains_key(name.as_str().unwrap()))
                }),
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.value(argument, item, &format!("{at}/{number}"))?;
                    }
                    true
                }
                "properties" | "additionalProperties" => {
                    self.properties(schema, value, at)?;
                    true
                }
                "propertyNames" => true,
                known if WORDS.contains(&known) => true,
                unknown => panic!("{unknown} is not known to this check"),
            };
            if !matches {
                return Err(format!("{at}: {value} is not {word} {argument}"));
            }
        }
        Ok(())
    }

    fn properties(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}/{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => return Err(format!("{at} is not known")),
                (Value::Null, Value::Null | Value::Bool(true)) => {}
                (Value::Null, others) => self.value(others, inner, &at)?,
                (known, _) => self.value(known, inner, &at)?,
            }
        }
        Ok(())
    }
}

fn is_a(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}
