// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
)

// AlertStore is an alert.Store that can be closed.
type AlertStore interface {
	alert.Store
	Close() error
}

// RunAlerts runs the suite every alert.Store must pass. open makes an empty store for one test and closes
// it when the test ends.
func RunAlerts(t *testing.T, open func(t *testing.T) AlertStore) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, AlertStore)
	}{
		{"reads back what was written", testAlertsRoundTrip},
		{"replaces by ID", testAlertsReplace},
		{"forgets what ended first", testAlertsKeep},
		{"many at once", testAlertsMany},
		{"closed", testAlertsClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// Alert is an alert with every field set, as an alert that fires has them.
func Alert(id int64) alert.Alert {
	at := epoch.Add(time.Duration(id) * time.Second)
	return alert.Alert{
		ID: id, Name: "Too busy", Severity: alert.Warn, Policy: "p", Component: "root.3", State: alert.Firing,
		Labels: map[string]string{"alertname": "Too busy", "odd": "naïve 名/前 '; DROP TABLE x; --"}, Channels: []string{"a", "b"},
		Start: at, Last: at.Add(time.Second), ResolveTimeout: 1500 * time.Millisecond,
		DeliveryError: "pager: down", Pending: []string{"pager", "chat"},
	}
}

func over(id int64, at time.Time) alert.Alert {
	a := Alert(id)
	a.State, a.End, a.Pending, a.DeliveryError = alert.Resolved, at, nil, ""
	return a
}

func save(t *testing.T, s alert.Store, keep int, alerts ...alert.Alert) {
	t.Helper()
	if err := s.SaveAlerts(t.Context(), alerts, keep); err != nil {
		t.Fatalf("save: %v", err)
	}
}

func load(t *testing.T, s alert.Store) []alert.Alert {
	t.Helper()
	out, err := s.LoadAlerts(t.Context())
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return out
}

func ids(alerts []alert.Alert) []int64 {
	var out []int64
	for _, a := range alerts {
		out = append(out, a.ID)
	}
	return out
}

func testAlertsRoundTrip(t *testing.T, s AlertStore) {
	if got := load(t, s); len(got) != 0 {
		t.Errorf("empty: got %v", got)
	}
	save(t, s, 10)
	bare := alert.Alert{ID: 1 << 62, State: alert.Firing, Start: epoch, Last: epoch}
	want := []alert.Alert{Alert(1), over(2, epoch), bare}
	save(t, s, 10, want[2], want[0], want[1])
	equal(t, "loaded", load(t, s), want)
}

func testAlertsReplace(t *testing.T, s AlertStore) {
	save(t, s, 10, Alert(1), Alert(2))
	save(t, s, 10, over(1, epoch))
	equal(t, "loaded", load(t, s), []alert.Alert{over(1, epoch), Alert(2)})
}

func testAlertsKeep(t *testing.T, s AlertStore) {
	save(t, s, 4, Alert(1), over(2, epoch.Add(3*time.Second)), over(3, epoch.Add(time.Second)), over(4, epoch.Add(2*time.Second)))
	save(t, s, 4, Alert(5))
	equal(t, "one too many", ids(load(t, s)), []int64{1, 2, 4, 5})
	save(t, s, 4, Alert(6), Alert(7), Alert(8), Alert(9))
	equal(t, "firing ones stay", ids(load(t, s)), []int64{1, 5, 6, 7, 8, 9})
	save(t, s, 0, over(9, epoch))
	equal(t, "keep none", ids(load(t, s)), []int64{1, 5, 6, 7, 8})
}

func testAlertsMany(t *testing.T, s AlertStore) {
	var alerts []alert.Alert
	for id := int64(1); id <= 2000; id++ {
		alerts = append(alerts, over(id, epoch.Add(time.Duration(id)*time.Second)))
	}
	save(t, s, 1500, alerts...)
	got := load(t, s)
	if len(got) != 1500 || got[0].ID != 501 {
		t.Errorf("got %d alerts from %s on, want the newest 1500", len(got), fmt.Sprint(ids(got[:1])))
	}
}

func testAlertsClosed(t *testing.T, s AlertStore) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveAlerts(t.Context(), []alert.Alert{Alert(1)}, 10); err == nil {
		t.Error("save after close: got no error")
	}
	if _, err := s.LoadAlerts(t.Context()); err == nil {
		t.Error("load after close: got no error")
	}
}
