//! Where weir keeps its data when nobody says where.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The directory that was given, or the default: `/var/lib/weir` for root, else
/// `$XDG_STATE_HOME/weir`, else `~/.local/state/weir`.
pub(crate) fn choose(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given);
    }
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    default_for(effective_user()?, absolute("XDG_STATE_HOME"), absolute("HOME"))
}

fn default_for(
    user: u32,
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> anyhow::Result<PathBuf> {
    if user == 0 {
        return Ok(PathBuf::from("/var/lib/weir"));
    }
    match (state_home, home) {
        (Some(state), _) => Ok(state.join("weir")),
        (None, Some(home)) => Ok(home.join(".local/state/weir")),
        (None, None) => bail!(
            "no data directory: neither XDG_STATE_HOME nor HOME is set; name one with --data-dir"
        ),
    }
}

/// The effective user id. Read from `status`, which stays readable when the program file has
/// capabilities; the owner of `/proc/self` becomes root then.
fn effective_user() -> anyhow::Result<u32> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
        .with_context(|| format!("{} has no effective user id", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_their_own_place() {
        let path = |text: &str| Some(PathBuf::from(text));
        let cases = [
            (0, path("/s"), path("/root"), "/var/lib/weir"),
            (1000, path("/s"), path("/home/a"), "/s/weir"),
            (1000, None, path("/home/a"), "/home/a/.local/state/weir"),
        ];
        for (user, state, home, expected) in cases {
            assert_eq!(default_for(user, state, home).unwrap(), PathBuf::from(expected));
        }
        let error = default_for(1000, None, None).unwrap_err().to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn what_was_given_wins() {
        assert_eq!(choose(Some("x".into())).unwrap(), PathBuf::from("x"));
    }
}
