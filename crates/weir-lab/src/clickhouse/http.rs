//! Asking over HTTP.

use std::time::Duration;

use super::{Cost, Engine};
use crate::LabError;

const TIMEOUT: Duration = Duration::from_mins(2);

fn trouble(message: String) -> LabError {
    LabError::Answer { program: "ClickHouse".to_owned(), message }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        .build()
        .into()
}

/// Runs a statement in a database, with settings of its own.
pub(super) fn statement(
    engine: &Engine,
    database: &str,
    sql: &str,
    settings: &[(&str, &str)],
) -> Result<String, LabError> {
    let mut request = agent()
        .post(format!("{}/", engine.url()))
        .query("database", database)
        .query_pairs(settings.iter().copied());
    if let Some(account) = &engine.account {
        request = request
            .header("X-ClickHouse-User", &account.user)
            .header("X-ClickHouse-Key", &account.password);
    }
    let mut response = request.send(sql).map_err(|error| trouble(error.to_string()))?;
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string();
    let text = text.map_err(|error| trouble(error.to_string()))?;
    if response.status().is_success() { Ok(text) } else { Err(trouble(text.trim().to_owned())) }
}

/// Reads `/engine`.
pub(super) fn cost(engine: &Engine) -> Result<Cost, LabError> {
    #[derive(serde::Deserialize)]
    struct Figures {
        engine_cpu_seconds: f64,
        server_cpu_seconds: f64,
        requests: u64,
    }
    let figures: Figures = serde_json::from_str(&get(&format!("{}/engine", engine.url()))?)
        .map_err(|error| trouble(error.to_string()))?;
    let Figures { engine_cpu_seconds, server_cpu_seconds, requests } = figures;
    Ok(Cost { engine_cpu_seconds, server_cpu_seconds, requests })
}

/// Gets a page.
pub(crate) fn get(url: &str) -> Result<String, LabError> {
    let mut response = agent().get(url).call().map_err(|error| trouble(error.to_string()))?;
    let text = response.body_mut().read_to_string().map_err(|error| trouble(error.to_string()))?;
    if response.status().is_success() { Ok(text) } else { Err(trouble(text.trim().to_owned())) }
}
