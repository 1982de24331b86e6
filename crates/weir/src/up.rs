//! `weir up`: the whole pipeline in one process, with its API, until stopped.

mod screen;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use anyhow::Context as _;
use weir_agent::{clock, pages};
use weir_conntrack::capability;
use weir_server::api;

use self::screen::Screen;
use crate::args::Listen;
use crate::config::Config;
use crate::say::{self, say};
use crate::signals;
use crate::station::{Door, Plan, Station};
use crate::top::{attend, live};
use crate::unprivileged;

/// Runs until a signal, or whoever watches, ends it.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    say::log();
    pages::keep_small();
    let stopping = signals::stop()?;
    let attended = !config.plain && io::stdin().is_terminal() && io::stdout().is_terminal();
    let door = Door::of(&config.conntrack);
    if door == Door::Netlink && !capability::net_admin()? {
        if attended {
            say("no CAP_NET_ADMIN: watching this machine's TCP sockets; nothing is kept");
            return attend::sockets(config.interval, &stopping);
        }
        return unprivileged::watch(config.interval, config.plain, &stopping);
    }

    let plan = Plan {
        data_dir: config.data_dir.clone(),
        retention: config.retention,
        interval: config.interval,
        cpu_budget: config.cpu_budget,
        door,
        activate_conntrack: config.activate_conntrack,
        set_sysctls: !config.no_set_sysctls,
    };
    let mut station = Station::open(&plan, &stopping)?;
    let running = listen(config, &mut station).inspect_err(|_| station.give_up())?;
    if attended {
        let options = live::Options::here(config.interval);
        attend::watch(station, options, &stopping)?;
    } else {
        let screen = Screen::new(station.store(), config.plain, config.interval);
        station.run(Some(Box::new(move |status| screen.show(status))), &stopping)?;
    }
    drop(running);
    say("stopped; everything that was read is stored or in the spool");
    Ok(())
}

/// Opens the API. Without one weir would meter on, but whoever asked for it should know.
fn listen(config: &Config, station: &mut Station) -> anyhow::Result<Option<api::Running>> {
    let Listen::At(address) = config.listen else { return Ok(None) };
    let query = station.query();
    let options = api::Options {
        allowed_hosts: config.allow_host.clone(),
        ..api::Options::new(Arc::new(clock::wall), query.changes())
    };
    let running = api::start(&[address], query, &options).with_context(|| {
        format!(
            "open the HTTP API on {address} (another weir may run: choose another with --listen, \
             or --listen none)"
        )
    })?;
    for address in &running.addresses {
        let url = format!("http://{address}");
        say(&format!("API: {url}/api/v1 (and watch from another terminal: weir top)"));
        station.set_api(url);
    }
    Ok(Some(running))
}
