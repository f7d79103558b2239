//! The comparison at the end: every record of the source against what is here, and both counted.
//! Leaves bringing anything over to `table`.

use cortex_client::{
    Client, Error,
    api::{Keys, Page, TableInfo},
};

use super::batch::{self, TargetRecord};
use super::report::{Report, TableReport};
use super::source::{Source, text};

/// Reads the source's table once more, looks every record up here, and finds what is here alone.
pub(super) fn records(
    name: &str,
    key_field: &str,
    source: &mut Source,
    target: &mut Client,
    report: &mut Report,
    table: &mut TableReport,
) -> Result<(), Error> {
    let mut elements = source.records(name)?;
    loop {
        let batch = batch::read(&mut elements, key_field)?;
        report.read(batch.bytes);
        let there = batch::look_up(target, name, &batch.rows)?;
        for (row, there) in batch.rows.iter().zip(there) {
            match there {
                TargetRecord::Same => table.same += 1,
                TargetRecord::Another => {
                    table.different += 1;
                    report.note(table, &format!("{:?} differs here", row.key));
                }
                TargetRecord::Nothing => {
                    table.missing += 1;
                    report.note(table, &format!("{:?} is not here", row.key));
                }
            }
        }
        if batch.is_last {
            break;
        }
    }
    only_here(name, source, target, report, table)
}

/// Looks for keys that the source lacks, where there are more records here than were met.
fn only_here(
    name: &str,
    source: &mut Source,
    target: &mut Client,
    report: &mut Report,
    table: &mut TableReport,
) -> Result<(), Error> {
    let info = target.call(&TableInfo { table: name })?;
    let met = table.same + table.different;
    let surplus = info.records.saturating_sub(met);
    let mut keys = target.call_streamed(&Keys { table: name, page: Page::default() })?;
    while table.only_here < surplus
        && let Some(key) = keys.next_element()?
    {
        let Some(key) = text(key) else {
            continue;
        };
        if !source.has(name, key)? {
            table.only_here += 1;
            report.note(table, &format!("{key:?} is here alone"));
        }
    }
    Ok(())
}
