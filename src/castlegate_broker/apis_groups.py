"""Tables of the messages of consumer groups and their committed offsets (the classic protocol)."""

from castlegate_broker.schema import api

FIND_COORDINATOR = api(
    10,
    "FindCoordinator",
    "0-4",
    flexible=3,
    request="""
        key       string    0-3
        key_type  int8      1+
        keys      []string  4+
    """,
    response="""
        throttle_time_ms  int32    1+   =0
        error_code        int16    0-3  =0
        error_message     string?  1-3  =null
        node_id           int32    0-3  =-1
        host              string   0-3  =
        port              int32    0-3  =-1
        coordinators      []       4+   =[]
          key             string
          node_id         int32
          host            string
          port            int32
          error_code      int16
          error_message   string?
    """,
)

JOIN_GROUP = api(
    11,
    "JoinGroup",
    "0-8",
    flexible=6,
    request="""
        group_id              string
        session_timeout_ms    int32
        rebalance_timeout_ms  int32    1+  =-1
        member_id             string
        group_instance_id     string?  5+
        protocol_type         string
        protocols             []
          name                string
          metadata            bytes
        reason                string?  8+
    """,
    response="""
        throttle_time_ms     int32    2+  =0
        error_code           int16        =0
        generation_id        int32        =-1
        protocol_type        string?  7+  =null
        protocol_name        string?      =
        leader               string       =
        member_id            string       =
        members              []           =[]
          member_id          string
          group_instance_id  string?  5+
          metadata           bytes
    """,
)

SYNC_GROUP = api(
    14,
    "SyncGroup",
    "0-5",
    flexible=4,
    request="""
        group_id           string
        generation_id      int32
        member_id          string
        group_instance_id  string?  3+
        protocol_type      string?  5+
        protocol_name      string?  5+
        assignments        []
          member_id        string
          assignment       bytes
    """,
    response="""
        throttle_time_ms  int32    1+  =0
        error_code        int16        =0
        protocol_type     string?  5+  =null
        protocol_name     string?  5+  =null
        assignment        bytes
    """,
)

HEARTBEAT = api(
    12,
    "Heartbeat",
    "0-4",
    flexible=4,
    request="""
        group_id           string
        generation_id      int32
        member_id          string
        group_instance_id  string?  3+
    """,
    response="""
        throttle_time_ms  int32  1+  =0
        error_code        int16
    """,
)

LEAVE_GROUP = api(
    13,
    "LeaveGroup",
    "0-5",
    flexible=4,
    request="""
        group_id             string
        member_id            string   0-2
        members              []       3+
          member_id          string
          group_instance_id  string?
          reason             string?  5+
    """,
    response="""
        throttle_time_ms     int32    1+  =0
        error_code           int16        =0
        members              []       3+  =[]
          member_id          string
          group_instance_id  string?
          error_code         int16
    """,
)

OFFSET_COMMIT = api(
    8,
    "OffsetCommit",
    "2-8",
    flexible=8,
    request="""
        group_id            string
        generation_id       int32
        member_id           string
        group_instance_id   string?  7+
        retention_time_ms   int64    2-4  =-1
        topics              []
          name              string
          partitions        []
            index           int32
            offset          int64
            leader_epoch    int32    6+   =-1
            metadata        string?
    """,
    response="""
        throttle_time_ms  int32   3+  =0
        topics            []
          name            string
          partitions      []
            index         int32
            error_code    int16
    """,
)

OFFSET_FETCH = api(
    9,
    "OffsetFetch",
    "1-8",
    flexible=6,
    request="""
        group_id         string    0-7
        topics           []?       0-7
          name           string
          partitions     []int32
        groups           []        8+
          group_id       string
          topics         []?
            name         string
            partitions   []int32
        require_stable   bool      7+
    """,
    response="""
        throttle_time_ms    int32    3+   =0
        topics              []       0-7  =[]
          name              string
          partitions        []
            index           int32
            offset          int64
            leader_epoch    int32    5+
            metadata        string?
            error_code      int16         =0
        error_code          int16    2-7  =0
        groups              []       8+   =[]
          group_id          string
          topics            []
            name            string
            partitions      []
              index         int32
              offset        int64
              leader_epoch  int32
              metadata      string?
              error_code    int16         =0
          error_code        int16         =0
    """,
)

OFFSET_DELETE = api(
    47,
    "OffsetDelete",
    "0-0",
    flexible=1,
    request="""
        group_id      string
        topics        []
          name        string
          partitions  []
            index     int32
    """,
    response="""
        error_code        int16   =0
        throttle_time_ms  int32   =0
        topics            []      =[]
          name            string
          partitions      []
            index         int32
            error_code    int16
    """,
)

DESCRIBE_GROUPS = api(
    15,
    "DescribeGroups",
    "0-5",
    flexible=5,
    request="""
        groups                         []string
        include_authorized_operations  bool      3+
    """,
    response="""
        throttle_time_ms       int32    1+  =0
        groups                 []
          error_code           int16        =0
          group_id             string
          state                string
          protocol_type        string
          protocol_name        string
          members              []
            member_id          string
            group_instance_id  string?  4+
            client_id          string
            client_host        string
            metadata           bytes
            assignment         bytes
          authorized_operations  int32  3+  =-2147483648
    """,
)

LIST_GROUPS = api(
    16,
    "ListGroups",
    "0-5",
    flexible=3,
    request="""
        states_filter  []string  4+
        types_filter   []string  5+
    """,
    response="""
        throttle_time_ms  int32   1+  =0
        error_code        int16       =0
        groups            []
          group_id        string
          protocol_type   string
          state           string  4+
          type            string  5+  =classic
    """,
)

DELETE_GROUPS = api(
    42,
    "DeleteGroups",
    "0-2",
    flexible=2,
    request="""
        groups  []string
    """,
    response="""
        throttle_time_ms  int32   =0
        results           []
          group_id        string
          error_code      int16
    """,
)
