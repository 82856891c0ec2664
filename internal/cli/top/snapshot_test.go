// SPDX-License-Identifier: Apache-2.0

package top

import (
	"testing"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

func TestSnapshotText(t *testing.T) {
	for name, f := range map[string]frame{
		"snapshot":       compare(overviewAt(0), overviewAt(2)),
		"snapshot_first": compare(nil, overviewAt(0)),
		"snapshot_empty": compare(&observev1.Overview{}, &observev1.Overview{}),
		"snapshot_odd":   compare(overviewAt(0), oddOverview()),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, snapshot("127.0.0.1:8080", f)) })
	}
}
