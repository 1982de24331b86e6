//! A database for one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Engine, http};
use crate::LabError;

/// A database that is dropped at the end.
#[derive(Debug)]
pub struct Database {
    engine: Engine,
    name: String,
}

impl Database {
    /// Makes one.
    pub(super) fn create(engine: &Engine) -> Result<Self, LabError> {
        let database = Self::named(engine);
        engine.run(&format!("CREATE DATABASE {}", database.name))?;
        Ok(database)
    }

    /// Thinks of a name.
    pub(super) fn named(engine: &Engine) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("weir_test_{}_{now}_{number}", std::process::id());
        let engine =
            Engine { url: engine.url.clone(), account: engine.account.clone(), process: None };
        Self { engine, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.engine.url()
    }

    /// The engine that has it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a statement in it; answers come as tab-separated text unless it says `FORMAT`.
    pub fn run(&self, sql: &str) -> Result<String, LabError> {
        self.run_with(sql, &[])
    }

    /// [`Database::run`] with settings that hold for this statement.
    pub fn run_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<String, LabError> {
        http::statement(&self.engine, &self.name, sql, settings)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The engine may be dead by then, and goes away with all it has.
        drop(self.engine.run(&format!("DROP DATABASE IF EXISTS {} SYNC", self.name)));
    }
}
