//! Ways from one dashboard to the next. They carry the time range, the data source and the job.

use serde_json::{Value, json};

/// uid of the fleet's dashboard.
pub const FLEET: &str = "splitlock-fleet";
/// uid of the host's dashboard.
pub const HOST: &str = "splitlock-host";
/// uid of the VM's dashboard.
pub const VM: &str = "splitlock-vm";

const CARRIED: &str = "${datasource:queryparam}&${job:queryparam}";

/// From a row of a table to its host.
pub fn row_to_host() -> Value {
    let instance = "${__data.fields.instance:percentencode}";
    data_link(
        "Host ${__data.fields.instance}",
        HOST,
        &format!("var-instance={instance}"),
    )
}

/// From a series to its host.
pub fn series_to_host() -> Value {
    let instance = "${__field.labels.instance:percentencode}";
    data_link(
        "Host ${__field.labels.instance}",
        HOST,
        &format!("var-instance={instance}"),
    )
}

/// From a row of a table to its VM, on whichever host it is: it may have migrated.
pub fn row_to_vm() -> Value {
    let (vm, id) = (
        "${__data.fields.vm:percentencode}",
        "${__data.fields.id:percentencode}",
    );
    data_link(
        "VM ${__data.fields.vm}",
        VM,
        &format!("var-instance=$__all&var-vm={vm}&var-id={id}"),
    )
}

fn data_link(title: &str, uid: &str, variables: &str) -> Value {
    json!({
        "title": title,
        "url": format!("/d/{uid}?{CARRIED}&{variables}&${{__url_time_range}}"),
        "targetBlank": false,
    })
}

/// At the top of a dashboard: to the fleet, all of it.
pub fn to_fleet() -> Value {
    dashboard_link("Fleet", "All hosts", &format!("/d/{FLEET}?{CARRIED}"))
}

/// At the top of a dashboard: to the hosts that are chosen here.
pub fn to_hosts() -> Value {
    let url = format!("/d/{HOST}?{CARRIED}&${{instance:queryparam}}");
    dashboard_link("Host", "The hosts that are chosen here", &url)
}

/// At the top of a host's dashboard: to the VMs, wherever they are.
pub fn to_vms() -> Value {
    let url = format!("/d/{VM}?{CARRIED}&var-instance=$__all&${{vm:queryparam}}");
    dashboard_link("VM", "The VMs that are chosen here, on all hosts", &url)
}

/// At the top of the fleet's dashboard: to a VM that is to be chosen there.
pub fn to_a_vm() -> Value {
    let url = format!("/d/{VM}?{CARRIED}&var-instance=$__all");
    dashboard_link("VM", "One VM, on all its hosts", &url)
}

fn dashboard_link(title: &str, tooltip: &str, url: &str) -> Value {
    json!({
        "asDropdown": false,
        "icon": "dashboard",
        "includeVars": false,
        "keepTime": true,
        "tags": [],
        "targetBlank": false,
        "title": title,
        "tooltip": tooltip,
        "type": "link",
        "url": url,
    })
}
