// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// TestMistakesInJSONAreExplained goes through what people get wrong who write JSON by hand.
func TestMistakesInJSONAreExplained(t *testing.T) {
	for _, tt := range []struct {
		body string
		into proto.Message
		want string
	}{
		{`{"result": {"value": "17 shoes"}}`, &cachev1.UpsertRequest{}, "bytes are base64 in JSON"},
		{`{"result": {"ttl": "600"}}`, &cachev1.UpsertRequest{}, `such as "600s"`},
		{`{"cache": {"coalesce": "WAIT"}}`, &flowv1.StartRequest{}, "COALESCE_WAIT, COALESCE_STALE"},
		{`{"controlpoint": "x"}`, &flowv1.StartRequest{}, `did you mean "controlPoint"?`},
		{`{"request": {"haeders": {}}}`, &flowv1.CheckHTTPRequest{}, `did you mean "headers"?`},
		{`{"something else": 1}`, &flowv1.StartRequest{}, "/openapi.json"},
		{`{"controlPoint": 1}`, &flowv1.StartRequest{}, "controlPoint"},
		{`{`, &flowv1.StartRequest{}, "unexpected"},
		{``, &flowv1.StartRequest{}, "the body is empty"},
	} {
		err := strictJSON{"json"}.Unmarshal([]byte(tt.body), tt.into)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %s", tt.body, err, tt.want)
		}
	}
}
