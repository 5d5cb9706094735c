"""Tables of the messages that carry records and say where they are.

Minimum versions are those that Kafka 4 still serves (KIP-896); maximum ones stop before a version that asks more
of a broker than this one is: topic ids in Fetch (13) and Produce (13), the new group protocol, tiered storage.
"""

from castlegate_broker.schema import api

API_VERSIONS = api(
    18,
    "ApiVersions",
    "0-4",
    flexible=3,
    request="""
        client_software_name     string   3+
        client_software_version  string   3+
    """,
    response="""
        error_code        int16
        api_keys          []
          api_key         int16
          min_version     int16
          max_version     int16
        throttle_time_ms  int32    1+  =0
    """,
)

METADATA = api(
    3,
    "Metadata",
    "0-12",
    flexible=9,
    request="""
        topics      []?
          topic_id  uuid     10+
          name      string?
        allow_auto_topic_creation              bool  4+    =true
        include_cluster_authorized_operations  bool  8-10
        include_topic_authorized_operations    bool  8+
    """,
    response="""
        throttle_time_ms      int32    3+  =0
        brokers               []
          node_id             int32
          host                string
          port                int32
          rack                string?  1+  =null
        cluster_id            string?  2+
        controller_id         int32    1+
        topics                []
          error_code          int16
          name                string?
          topic_id            uuid     10+
          is_internal         bool     1+  =false
          partitions          []
            error_code        int16        =0
            partition_index   int32
            leader_id         int32
            leader_epoch      int32    7+
            replica_nodes     []int32
            isr_nodes         []int32
            offline_replicas  []int32  5+  =[]
          topic_authorized_operations  int32  8+    =-2147483648
        cluster_authorized_operations  int32  8-10  =-2147483648
    """,
)

PRODUCE = api(
    0,
    "Produce",
    "3-9",
    flexible=9,
    # librdkafka sends no compressed batches to a broker whose Produce does not start at 0 (KAFKA-18659).
    advertised_oldest=0,
    request="""
        transactional_id  string?  3+
        acks              int16
        timeout_ms        int32
        topics            []
          name            string
          partitions      []
            index         int32
            records       records?
    """,
    response="""
        topics                  []
          name                  string
          partitions            []
            index               int32
            error_code          int16
            base_offset         int64        =-1
            log_append_time_ms  int64        =-1
            log_start_offset    int64    5+  =-1
            record_errors       []       8+  =[]
              batch_index       int32
              message           string?
            error_message       string?  8+  =null
        throttle_time_ms        int32        =0
    """,
)

FETCH = api(
    1,
    "Fetch",
    "4-12",
    flexible=12,
    request="""
        replica_id                int32
        max_wait_ms               int32
        min_bytes                 int32
        max_bytes                 int32
        isolation_level           int8
        session_id                int32   7+   =0
        session_epoch             int32   7+   =-1
        topics                    []
          name                    string
          partitions              []
            index                 int32
            current_leader_epoch  int32   9+   =-1
            offset                int64
            last_fetched_epoch    int32   12+  =-1
            log_start_offset      int64   5+   =-1
            max_bytes             int32
        forgotten_topics          []      7+
          name                    string
          partitions              []int32
        rack_id                   string  11+
    """,
    response="""
        throttle_time_ms            int32         =0
        error_code                  int16     7+  =0
        session_id                  int32     7+  =0
        topics                      []
          name                      string
          partitions                []
            index                   int32
            error_code              int16         =0
            high_watermark          int64         =-1
            last_stable_offset      int64         =-1
            log_start_offset        int64     5+  =-1
            aborted_transactions    []?           =null
              producer_id           int64
              first_offset          int64
            preferred_read_replica  int32    11+  =-1
            records                 records?      =[]
    """,
)

LIST_OFFSETS = api(
    2,
    "ListOffsets",
    "1-7",
    flexible=6,
    request="""
        replica_id                int32
        isolation_level           int8    2+
        topics                    []
          name                    string
          partitions              []
            index                 int32
            current_leader_epoch  int32   4+  =-1
            timestamp             int64
    """,
    response="""
        throttle_time_ms  int32   2+  =0
        topics            []
          name            string
          partitions      []
            index         int32
            error_code    int16       =0
            timestamp     int64       =-1
            offset        int64       =-1
            leader_epoch  int32   4+  =-1
    """,
)

OFFSET_FOR_LEADER_EPOCH = api(
    23,
    "OffsetForLeaderEpoch",
    "2-4",
    flexible=4,
    request="""
        replica_id                int32   3+  =-2
        topics                    []
          name                    string
          partitions              []
            index                 int32
            current_leader_epoch  int32
            leader_epoch          int32
    """,
    response="""
        throttle_time_ms  int32   =0
        topics            []
          name            string
          partitions      []
            error_code    int16   =0
            index         int32
            leader_epoch  int32   =-1
            end_offset    int64   =-1
    """,
)

INIT_PRODUCER_ID = api(
    22,
    "InitProducerId",
    "0-4",
    flexible=2,
    request="""
        transactional_id        string?
        transaction_timeout_ms  int32
        producer_id             int64    3+  =-1
        producer_epoch          int16    3+  =-1
    """,
    response="""
        throttle_time_ms  int32  =0
        error_code        int16  =0
        producer_id       int64  =-1
        producer_epoch    int16  =-1
    """,
)

DELETE_RECORDS = api(
    21,
    "DeleteRecords",
    "0-2",
    flexible=2,
    request="""
        topics        []
          name        string
          partitions  []
            index     int32
            offset    int64
        timeout_ms    int32
    """,
    response="""
        throttle_time_ms   int32   =0
        topics             []
          name             string
          partitions       []
            index          int32
            low_watermark  int64   =-1
            error_code     int16   =0
    """,
)
