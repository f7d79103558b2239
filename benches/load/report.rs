//! The figures as a table for people and as JSON for scripts.

use anyhow::Result;
use serde_json::{Value, json};

use super::args::Args;
use super::figures::{Measured, Series, Spread};
use super::limits::Limits;
use super::wire::VALUE_BYTES;

/// The latencies to show.
const P50: f64 = 0.50;
const P99: f64 = 0.99;

/// The head of the table that [`lines`] goes on with.
pub(crate) fn header() -> String {
    format!(
        "{:<13} {:<8} {:>9} {:>9} {:>9} {:>10} {:>7} {:>9}   {}\n{:<13} {:<8} {:>9} {:>9} {:>9} {:>10} {:>7} {:>9}   {}",
        "scenario",
        "server",
        "ops/s",
        "p50",
        "p99",
        "server CPU",
        "client",
        "p50 over",
        "cortexd/redis",
        "",
        "",
        "",
        "µs",
        "µs",
        "µs/op",
        "busy",
        "limit",
        "median (min–max)",
    )
}

/// The lines of one scenario: one per server, the first with the ratio.
pub(crate) fn lines(measured: &Measured) -> Result<String> {
    let mut lines = Vec::new();
    for (i, series) in measured.series.iter().enumerate() {
        let name = if i == 0 { measured.scenario.name } else { "" };
        let ratio = if i == 0 { measured.ratios() } else { None };
        let line = line(name, series, measured.serial_limit_us(), ratio)?;
        lines.push(line.trim_end().to_owned());
    }
    Ok(lines.join("\n"))
}

fn line(
    name: &str,
    series: &Series,
    limit_us: Option<f64>,
    ratio: Option<Spread>,
) -> Result<String> {
    let p50 = series.latency_us(P50)?;
    Ok(format!(
        "{name:<13} {:<8} {:>9.0} {p50:>9.1} {:>9.1} {:>10.2} {:>6.0}% {:>9}   {}",
        series.peer.name(),
        series.median(|run| run.ops_per_s),
        series.latency_us(P99)?,
        series.median(|run| run.server_cpu_us),
        series.median(|run| run.client_share) * 100.0,
        limit_us.map_or(String::new(), |limit| format!("{:.2}", p50 / limit)),
        ratio.map_or(String::new(), spread),
    ))
}

fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.2} ({min:.2}–{max:.2})")
}

/// The machine's limits over the whole benchmark.
pub(crate) fn limits(all: &[Measured]) -> String {
    let over = |pick: fn(&Limits) -> f64| limit_spread(all, pick);
    [
        ("append 4 KiB + fdatasync", over(|limits| limits.append_us)),
        ("overwrite 4 KiB + fdatasync", over(|limits| limits.overwrite_us)),
        ("round trip of 100 B, Unix socket", over(|limits| limits.round_trip_us)),
    ]
    .map(|(what, Spread { median, min, max })| {
        format!("{what:<33} {median:>6.1} µs ({min:.1}–{max:.1})")
    })
    .join("\n")
}

fn limit_spread(all: &[Measured], pick: fn(&Limits) -> f64) -> Spread {
    let figures: Vec<_> = all.iter().map(|measured| pick(&measured.limits)).collect();
    Spread::of(&figures)
}

/// Everything, run by run.
pub(crate) fn json(args: &Args, all: &[Measured]) -> Result<Value> {
    let scenarios = all.iter().map(scenario_json).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "pairs": args.pairs,
        "seconds": args.seconds.as_secs_f64(),
        "keys": args.keys,
        "value_bytes": VALUE_BYTES,
        "scenarios": scenarios,
    }))
}

fn scenario_json(measured: &Measured) -> Result<Value> {
    let scenario = measured.scenario;
    let servers = measured.series.iter().map(series_json).collect::<Result<Vec<_>>>()?;
    let ratio = measured
        .ratios()
        .map(|Spread { median, min, max }| json!({"median": median, "min": min, "max": max}));
    Ok(json!({
        "name": scenario.name,
        "clients": scenario.clients,
        "pipeline": scenario.pipeline,
        "get_percent": scenario.get_percent,
        "limits": {
            "append_us": measured.limits.append_us,
            "overwrite_us": measured.limits.overwrite_us,
            "round_trip_us": measured.limits.round_trip_us,
            "serial_us": measured.serial_limit_us(),
        },
        "servers": servers,
        "ratio": ratio,
    }))
}

fn series_json(series: &Series) -> Result<Value> {
    let runs = series.runs.iter();
    Ok(json!({
        "server": series.peer.name(),
        "ops_per_s": runs.clone().map(|run| run.ops_per_s).collect::<Vec<_>>(),
        "server_cpu_us_per_op": runs.clone().map(|run| run.server_cpu_us).collect::<Vec<_>>(),
        "client_share": runs.map(|run| run.client_share).collect::<Vec<_>>(),
        "p50_us": series.latency_us(P50)?,
        "p99_us": series.latency_us(P99)?,
    }))
}
