# How near each node came to its machine's limit: the busiest minute of each, in the busier direction.
#
#   weir query series ... --by source.node,destination.node,node -o csv |
#     awk -f bandwidth.awk instances.csv nodes.csv -
#
# instances.csv: type,gbit_per_second. nodes.csv: name,type of every node.
BEGIN { step = step ? step : 60 }
FNR == 1 { file++ }
file == 1 { split($0, cell, ","); if (FNR > 1) limit[cell[1]] = cell[2]; next }
file == 2 { split($0, cell, ","); type[cell[1]] = cell[2]; next }
{
    gsub(/\r/, "")
    split($0, cell, ",")
    if (FNR == 1) { for (i in cell) column[cell[i]] = i; next }
    time = cell[column["time"]]
    from = cell[column["source.node"]]; to = cell[column["destination.node"]]
    add(from, time, cell[column["bytes_sent"]], cell[column["bytes_received"]])
    add(to, time, cell[column["bytes_received"]], cell[column["bytes_sent"]])
    # What a node passes on comes in and goes out again.
    passed = cell[column["transit_bytes"]]
    add(cell[column["node"]], time, passed, passed)
}
function add(node, time, sent, received) {
    if (node == "") return
    out[node, time] += sent; into[node, time] += received
    seen[node, time] = node
}
END {
    for (key in seen) {
        node = seen[key]
        bytes = out[key] > into[key] ? out[key] : into[key]
        if (bytes >= most[node]) { most[node] = bytes; split(key, part, SUBSEP); when[node] = part[2] }
    }
    printf "%-12s %-18s %-22s %10s %8s %7s\n", "NODE", "TYPE", "BUSIEST MINUTE", "GBIT/S", "LIMIT", "USED"
    for (node in most) {
        gbit = most[node] * 8 / step / 1e9
        name = node in type ? type[node] : "?"
        known = name in limit
        used = known ? sprintf("%.2f %%", 100 * gbit / limit[name]) : "?"
        printf "%-12s %-18s %-22s %10.4f %8s %7s\n", node, name, when[node], gbit, \
            (known ? limit[name] : "?"), used | "sort -k4,4nr"
    }
}
