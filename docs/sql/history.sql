-- What pods sent to whom, by the minute, over the change from kubenetmon to weir: kubenetmon's
-- table before the change, weir's own tables since. Each byte counts once on both sides of it.
--
-- {change:DateTime} is when weir's agents took over; {since:DateTime} and {until:DateTime} are what
-- is asked about. Put the names of your databases in place of `weir` and `default`.
SELECT minute, sender, receiver, class, sum(bytes) AS bytes, sum(packets) AS packets, meter
FROM
(
    SELECT
        intervalStartTime AS minute,
        'kubenetmon' AS meter,
        if(localPod != '', 'pod/' || localNamespace || '/' || localPod,
           'external/' || toString(localIPv4)) AS local,
        if(remotePod != '', 'pod/' || remoteNamespace || '/' || remotePod,
           'external/' || toString(remoteIPv4)) AS remote,
        if(direction = 'out', local, remote) AS sender,
        if(direction = 'out', remote, local) AS receiver,
        toString(connectionClass) AS class,
        bytes,
        packets
    FROM default.network_flows_0
    -- Both nodes tell of a connection between them, so what comes in is told there as going out.
    -- What comes from the same node, or from no pod, is told here only.
    WHERE (direction = 'out' OR remotePod = '' OR remoteNode = localNode)
      AND date BETWEEN toDate({since:DateTime}) AND toDate({until:DateTime})
      AND intervalStartTime >= {since:DateTime}
      AND intervalStartTime < least({until:DateTime}, {change:DateTime})

    UNION ALL

    SELECT
        window AS minute,
        'weir' AS meter,
        src_id AS local,
        dst_id AS remote,
        if(is_sent, src_id, dst_id) AS sender,
        if(is_sent, dst_id, src_id) AS receiver,
        multiIf(class IN ('same_node', 'same_zone', 'cross_zone', 'intra_vpc'), 'INTRA_VPC',
                class = 'intra_region', 'INTRA_REGION',
                class = 'inter_region', 'INTER_REGION',
                class = 'internet', 'PUBLIC_INTERNET', 'UNKNOWN') AS class,
        if(is_sent, bytes_sent, bytes_received) AS bytes,
        if(is_sent, packets_sent, packets_received) AS packets
    FROM weir.flow_1m
    ARRAY JOIN [true, false] AS is_sent
    -- What tunnels carry is counted inside them. The next line leaves out what kubenetmon leaves
    -- out: IPv6, UDP and ICMP, and nodes. Without it, weir's part is all there is.
    WHERE class != 'transport'
      AND src_ip_version = 4 AND protocol = 6 AND src_kind != 'node' AND dst_kind != 'node'
      AND window >= greatest({since:DateTime}, {change:DateTime})
      AND window < {until:DateTime}
)
GROUP BY minute, sender, receiver, class, meter
ORDER BY minute, bytes DESC, sender, receiver
