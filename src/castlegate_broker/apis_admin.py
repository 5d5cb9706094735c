"""Tables of the messages that administer topics, their settings and the cluster."""

from castlegate_broker.schema import api

CREATE_TOPICS = api(
    19,
    "CreateTopics",
    "2-7",
    flexible=5,
    request="""
        topics                []
          name                string
          num_partitions      int32
          replication_factor  int16
          assignments         []
            partition_index   int32
            broker_ids        []int32
          configs             []
            name              string
            value             string?
        timeout_ms            int32
        validate_only         bool
    """,
    response="""
        throttle_time_ms      int32        =0
        topics                []
          name                string
          topic_id            uuid     7+
          error_code          int16
          error_message       string?
          num_partitions      int32    5+  =-1
          replication_factor  int16    5+  =-1
          configs             []?      5+  =[]
            name              string
            value             string?
            read_only         bool         =false
            config_source     int8
            is_sensitive      bool         =false
    """,
)

CREATE_PARTITIONS = api(
    37,
    "CreatePartitions",
    "0-3",
    flexible=2,
    request="""
        topics           []
          name           string
          count          int32
          assignments    []?
            broker_ids   []int32
        timeout_ms       int32
        validate_only    bool
    """,
    response="""
        throttle_time_ms  int32    =0
        results           []
          name            string
          error_code      int16
          error_message   string?
    """,
)

DELETE_TOPICS = api(
    20,
    "DeleteTopics",
    "1-6",
    flexible=4,
    request="""
        topics      []        6+
          name      string?
          topic_id  uuid
        names       []string  0-5
        timeout_ms  int32
    """,
    response="""
        throttle_time_ms  int32        =0
        topics            []
          name            string?
          topic_id        uuid     6+
          error_code      int16
          error_message   string?  5+
    """,
)

DESCRIBE_CONFIGS = api(
    32,
    "DescribeConfigs",
    "1-4",
    flexible=4,
    request="""
        resources              []
          type                 int8
          name                 string
          keys                 []string?
        include_synonyms       bool
        include_documentation  bool       3+
    """,
    response="""
        throttle_time_ms   int32        =0
        results            []
          error_code       int16        =0
          error_message    string?      =null
          type             int8
          name             string
          configs          []           =[]
            name           string
            value          string?
            read_only      bool         =false
            config_source  int8
            is_sensitive   bool         =false
            synonyms       []           =[]
              name         string
              value        string?
              source       int8
            config_type    int8     3+  =0
            documentation  string?  3+  =null
    """,
)

ALTER_CONFIGS = api(
    33,
    "AlterConfigs",
    "0-2",
    flexible=2,
    request="""
        resources      []
          type         int8
          name         string
          configs      []
            name       string
            value      string?
        validate_only  bool
    """,
    response="""
        throttle_time_ms  int32    =0
        responses         []
          error_code      int16
          error_message   string?
          type            int8
          name            string
    """,
)

INCREMENTAL_ALTER_CONFIGS = api(
    44,
    "IncrementalAlterConfigs",
    "0-1",
    flexible=1,
    request="""
        resources      []
          type         int8
          name         string
          configs      []
            name       string
            operation  int8
            value      string?
        validate_only  bool
    """,
    response="""
        throttle_time_ms  int32    =0
        responses         []
          error_code      int16
          error_message   string?
          type            int8
          name            string
    """,
)

DESCRIBE_CLUSTER = api(
    60,
    "DescribeCluster",
    "0-1",
    flexible=0,
    request="""
        include_cluster_authorized_operations  bool
        endpoint_type                          int8  1+  =1
    """,
    response="""
        throttle_time_ms  int32        =0
        error_code        int16        =0
        error_message     string?      =null
        endpoint_type     int8     1+  =1
        cluster_id        string
        controller_id     int32
        brokers           []
          broker_id       int32
          host            string
          port            int32
          rack            string?      =null
        cluster_authorized_operations  int32  =-2147483648
    """,
)
