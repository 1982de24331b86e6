//! What this process may do.

use std::fs;

use crate::Error;

/// `CAP_NET_ADMIN` of `include/uapi/linux/capability.h`.
const NET_ADMIN: u32 = 12;
/// The calling thread's, because capabilities are per thread.
const STATUS: &str = "/proc/thread-self/status";

/// True when the calling thread has `CAP_NET_ADMIN` in its effective set. Reading conntrack and
/// switching its accounting on need it.
///
/// Having it is not a promise: in a user namespace it counts only for the network namespaces that
/// belong to that user namespace.
pub fn net_admin() -> Result<bool, Error> {
    let status =
        fs::read_to_string(STATUS).map_err(|source| Error::File { path: STATUS.into(), source })?;
    Ok(effective(&status).is_some_and(|set| set & (1 << NET_ADMIN) != 0))
}

/// The effective set of a status file.
fn effective(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set_and_no_other() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n\
                      CapEff:\t0000000000001000\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(1 << NET_ADMIN));
        assert_eq!(effective("CapEff:\tnonsense\n"), None);
        assert_eq!(effective(""), None);
    }
}
