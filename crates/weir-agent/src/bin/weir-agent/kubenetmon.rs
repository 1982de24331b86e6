//! The variables of kubenetmon's agent, in weir's words.

use crate::settings::{Origin, Settings};

/// What looks a variable up.
pub(crate) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

const HOST: &str = "KUBENETMON_SERVER_SERVICE_HOST";
const PORT: &str = "KUBENETMON_SERVER_SERVICE_PORT";
/// Where kubenetmon's server listens where nobody says.
const DEFAULT_PORT: &str = "8884";

/// Its variables, and the settings they are.
const VARIABLES: [(&str, &str); 6] = [
    ("NODE_NAME", "node"),
    (HOST, "server"),
    ("COLLECTION_INTERVAL", "interval"),
    ("METRICS_PORT", "metrics"),
    ("UPTIME_WAIT_DURATION", "accounting_wait"),
    ("SKIP_CONNTRACK_SANITY_CHECK", "skip_accounting_check"),
];

/// Those of its runtime, which mean nothing here.
const OF_GO: [(&str, &str); 2] = [
    ("GOMAXPROCS", "the agent keeps within cpu_budget by itself"),
    ("GOMEMLIMIT", "the agent's memory is bounded by itself"),
];

/// A setting by one of its variables: which, and what it means here.
pub(crate) fn value(key: &str, environment: &Environment<'_>) -> Option<(&'static str, String)> {
    let (name, _) = VARIABLES.into_iter().find(|(_, known)| *known == key)?;
    let text = set(environment, name)?;
    let text = match name {
        HOST => {
            let port = set(environment, PORT).unwrap_or_else(|| DEFAULT_PORT.to_owned());
            if text.contains(':') { format!("[{text}]:{port}") } else { format!("{text}:{port}") }
        }
        // It answers on every address.
        "METRICS_PORT" => format!("0.0.0.0:{text}"),
        "SKIP_CONNTRACK_SANITY_CHECK" => switch(text),
        _ => text,
    };
    Some((name, text))
}

/// What became of each of its variables that is set, a line each.
pub(crate) fn notes(settings: &Settings, environment: &Environment<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, key) in VARIABLES {
        let Some(text) = set(environment, name) else { continue };
        let Some(said) = settings.get(key) else { continue };
        if said.origin == Origin::Environment(name) {
            notes.push(format!("{name} is taken as {key}: {}", said.text));
        } else {
            let origin = &said.origin;
            notes.push(format!("{name}: {text} is not used: {key} is said already ({origin})"));
        }
    }
    if notes.is_empty() {
        return notes;
    }
    if let Some(port) = set(environment, PORT) {
        notes.push(format!("{PORT}: {port} belongs to {HOST}"));
    }
    for (name, why) in OF_GO {
        if let Some(text) = set(environment, name) {
            notes.push(format!("{name}: {text} is not needed: {why}"));
        }
    }
    notes
}

/// What to say where the server is kubenetmon's and nothing says who speaks.
pub(crate) fn about_credentials(settings: &Settings) -> Option<&'static str> {
    let is_theirs =
        settings.get("server").is_some_and(|said| said.origin == Origin::Environment(HOST));
    is_theirs.then_some(
        "kubenetmon's agents say nothing of who they are and speak in plain sight. weir's need a \
         projected service account token (audience weir) in WEIR_TOKEN_FILE and the server's \
         authority in WEIR_CA_FILE; WEIR_INSECURE_PLAINTEXT=true is as little protection as before, \
         and the server must allow it, too",
    )
}

fn set(environment: &Environment<'_>, name: &str) -> Option<String> {
    environment(name).filter(|text| !text.is_empty())
}

/// A switch as Go writes it.
fn switch(text: String) -> String {
    match text.as_str() {
        "t" | "T" | "True" | "TRUE" => "true".to_owned(),
        "f" | "F" | "False" | "FALSE" => "false".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Said;

    fn environment(name: &str) -> Option<String> {
        let text = match name {
            "NODE_NAME" => "n1",
            "COLLECTION_INTERVAL" => "7s",
            HOST => "weir-server.weir.svc.cluster.local",
            PORT => "8884",
            "SKIP_CONNTRACK_SANITY_CHECK" => "True",
            "GOMEMLIMIT" => "268435456",
            "METRICS_PORT" => "",
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn values() {
        for (key, expected) in [
            ("server", Some((HOST, "weir-server.weir.svc.cluster.local:8884"))),
            ("skip_accounting_check", Some(("SKIP_CONNTRACK_SANITY_CHECK", "true"))),
            ("metrics", None),
            ("spool", None),
        ] {
            let expected = expected.map(|(name, text)| (name, text.to_owned()));
            assert_eq!(value(key, &environment), expected, "{key}");
        }
    }

    #[test]
    fn each_variable_that_is_set_has_its_note() {
        let said = |key, text: &str, origin| Said { key, text: text.to_owned(), origin };
        let settings = Settings(vec![
            said("node", "n1", Origin::Environment("NODE_NAME")),
            said("server", "s:8884", Origin::Environment(HOST)),
            said("interval", "5s", Origin::Flag),
            said(
                "skip_accounting_check",
                "true",
                Origin::Environment("SKIP_CONNTRACK_SANITY_CHECK"),
            ),
            said("metrics", "none", Origin::Default),
        ]);
        let notes = notes(&settings, &environment);
        assert_eq!(
            notes,
            [
                "NODE_NAME is taken as node: n1",
                "KUBENETMON_SERVER_SERVICE_HOST is taken as server: s:8884",
                "COLLECTION_INTERVAL: 7s is not used: interval is said already (flag)",
                "SKIP_CONNTRACK_SANITY_CHECK is taken as skip_accounting_check: true",
                "KUBENETMON_SERVER_SERVICE_PORT: 8884 belongs to KUBENETMON_SERVER_SERVICE_HOST",
                "GOMEMLIMIT: 268435456 is not needed: the agent's memory is bounded by itself",
            ]
        );
        assert!(about_credentials(&settings).is_some());
        let other = Settings(vec![said("server", "s:8884", Origin::Flag)]);
        assert!(about_credentials(&other).is_none());
        assert!(super::notes(&Settings(Vec::new()), &|_| None).is_empty());
    }
}
