//! stub
pub(crate) fn watch(_: std::time::Duration, _: bool, _: &std::sync::atomic::AtomicBool) -> anyhow::Result<()> { anyhow::bail!("needs CAP_NET_ADMIN") }
