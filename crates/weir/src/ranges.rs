//! `weir ranges`: which ranges of addresses are known on this machine, and making the copy that is
//! built into weir.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use weir_flow::ranges::{Provider, Range, Ranges};
use weir_server::ranges::published::{day_in_name, parse};
use weir_server::ranges::{Edition, Origin, Settings, Source, Standing, compact, load};

use crate::args::{
    Format, RangesAction, RangesArgs, RangesBuildArgs, RangesLookupArgs, RangesPlace, UsageError,
};
use crate::data_dir;
use crate::render::{self, Cell, Column, Shown, Unit, write_csv, write_json, write_rows};

/// Runs `weir ranges`.
pub(crate) fn run(args: RangesArgs) -> anyhow::Result<()> {
    match args.action {
        RangesAction::Lookup(args) => lookup(args),
        RangesAction::List(args) => {
            let (_, standing) = at_hand(args.place)?;
            let rows: Vec<_> = standing.sources.iter().map(source_cells).collect();
            print(&SOURCE, &rows, args.output.output)
        }
        RangesAction::Build(args) => build(&args),
    }
}

const RANGE: [&str; 5] = ["address", "cloud", "region", "service", "from"];
const SOURCE: [&str; 6] = ["provider", "prefixes", "as_of", "from", "note", "trouble"];

fn lookup(args: RangesLookupArgs) -> anyhow::Result<()> {
    let RangesLookupArgs { addresses, place, output } = args;
    let (ranges, standing) = at_hand(place)?;
    let row = |address: &std::net::IpAddr| {
        let range = ranges.lookup(*address);
        let mut cells = vec![Cell::Text(address.to_string())];
        cells.extend(range_cells(range));
        cells.push(range.map_or(Cell::Absent, |range| text(&origin(range, &standing))));
        cells
    };
    let rows: Vec<_> = addresses.iter().map(row).collect();
    print(&RANGE, &rows, output.output)
}

fn range_cells(range: Option<&Range>) -> [Cell; 3] {
    let said = |text: Option<&weir_flow::endpoint::Name>| {
        text.map_or(Cell::Absent, |text| Cell::Text(text.to_string()))
    };
    let field = |of: fn(&Range) -> Option<&weir_flow::endpoint::Name>| said(range.and_then(of));
    [
        field(|range| range.cloud.as_ref()),
        field(|range| range.region.as_ref()),
        field(|range| range.service.as_ref()),
    ]
}

/// Where what is said of a range comes from: the copies of its cloud, with their days.
fn origin(range: &Range, standing: &Standing) -> String {
    let cloud = range.cloud.as_deref();
    let sources = standing.sources.iter().filter(|source| Some(source.provider.cloud()) == cloud);
    let told = sources.map(|source| {
        let copy = source.origin.map_or("nothing", Origin::name);
        match (&source.as_of, source.note.is_empty()) {
            (Some(day), _) => format!("{} of {day} ({copy})", source.provider.name()),
            (None, true) => format!("{} ({copy})", source.provider.name()),
            (None, false) => format!("{} ({copy}, {})", source.provider.name(), source.note),
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

fn source_cells(source: &Source) -> Vec<Cell> {
    vec![
        text(source.provider.name()),
        Cell::Number(source.prefixes as u64),
        source.as_of.map_or(Cell::Absent, |day| Cell::Text(day.to_string())),
        source.origin.map_or(Cell::Absent, |origin| text(origin.name())),
        text(&source.note),
        source.trouble.as_deref().map_or(Cell::Absent, text),
    ]
}

fn text(text: &str) -> Cell {
    if text.is_empty() { Cell::Absent } else { Cell::Text(text.to_owned()) }
}

fn print(names: &[&str], rows: &[Vec<Cell>], format: Format) -> anyhow::Result<()> {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        heading: Some(name.replace('_', " ").to_uppercase()),
        unit: if *name == "prefixes" { Unit::Count } else { Unit::None },
    };
    let columns: Vec<Column> = names.iter().map(column).collect();
    let printed: io::Result<()> = render::to_stdout(|out, style| match format {
        Format::Table => write_rows(&columns, rows, style, out),
        Format::Csv => write_csv(&columns, rows, out),
        Format::Json => {
            let rows = rows.iter().map(|cells| render::Row { columns: &columns, cells });
            write_json(&rows.collect::<Vec<_>>(), out)
        }
    });
    Ok(printed?)
}

/// The ranges on this machine, as a server with this data directory would begin with.
fn at_hand(place: RangesPlace) -> anyhow::Result<(Ranges, Standing)> {
    let RangesPlace { data_dir, ranges_dir } = place;
    let cache = data_dir::choose(data_dir.data_dir)?.join("ranges");
    let settings = Settings { cache: Some(cache), dir: ranges_dir, own: Vec::new() };
    Ok(load(&settings, &[]))
}

/// Reads published files and writes the compact copy. What cannot be read is refused here: the copy
/// goes into a binary, and there is somebody to get a sound file.
fn build(args: &RangesBuildArgs) -> anyhow::Result<()> {
    let RangesBuildArgs { aws, gcp, google, azure, note, output } = args;
    let files = [
        (Provider::Aws, aws),
        (Provider::Gcp, gcp),
        (Provider::Google, google),
        (Provider::Azure, azure),
    ];
    let mut editions = Vec::new();
    for (provider, file) in files {
        if let Some(file) = file {
            editions.push(read(provider, file, note)?);
        }
    }
    if editions.is_empty() {
        return Err(
            UsageError("name at least one of --aws, --gcp, --google, --azure".into()).into()
        );
    }
    let bytes = compact::encode(&editions);
    fs::write(output, &bytes).with_context(|| format!("write {}", output.display()))?;
    render::to_stdout(|out, _| {
        for edition in &editions {
            let (provider, prefixes) = (edition.list.provider, edition.list.entries().len());
            let day = edition.as_of.map_or_else(|| "?".to_owned(), |day| day.to_string());
            writeln!(out, "{:<8} {prefixes:>7} prefixes of {day}", provider.name())?;
        }
        writeln!(out, "{} bytes in {}", bytes.len(), Shown(&output.display().to_string()))
    })?;
    Ok(())
}

fn read(provider: Provider, file: &Path, note: &str) -> anyhow::Result<Edition> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let published = parse(provider, &bytes);
    if let Some(damage) = published.damage {
        bail!("{}: damaged: {damage}; download it again", file.display());
    }
    if published.invalid + published.surplus > 0 || published.list.entries().is_empty() {
        bail!(
            "{}: {} prefixes and {} entries that cannot be read; is it {}'s file?",
            file.display(),
            published.list.entries().len(),
            published.invalid + published.surplus,
            provider.name(),
        );
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let as_of = published.as_of.or_else(|| day_in_name(&name));
    Ok(Edition { list: published.list, as_of, note: note.to_owned() })
}
