// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluice-project/sluice/internal/discovery"
)

// FuzzObject reads objects of any shape: what comes out are addresses with a service, and nothing panics.
func FuzzObject(f *testing.F) {
	for _, o := range []*unstructured.Unstructured{
		slice("a", "checkout", endpoint("p", "n", "10.0.0.1", "::1")),
		service("a", map[string]any{"clusterIP": "10.0.0.1", "clusterIPs": []any{"10.0.0.1", "None"}}),
	} {
		text, err := json.Marshal(o.Object)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"metadata":{"labels":{"kubernetes.io/service-name":1}},"endpoints":[{"targetRef":[],"addresses":{}}]}`))
	f.Add([]byte(`{"metadata":[],"spec":[],"endpoints":[[]]}`))
	s := newSource(Config{}, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		var o map[string]any
		if json.Unmarshal(text, &o) != nil || o == nil {
			return
		}
		u := &unstructured.Unstructured{Object: o}
		for _, list := range [][]discovery.Entity{s.fromSlice(u), s.fromService(u)} {
			for _, e := range list {
				if ip, err := netip.ParseAddr(e.Address); err != nil || ip.String() != e.Address || ip.Is4In6() || ip.Zone() != "" {
					t.Errorf("%s: got the address %q", text, e.Address)
				}
				if len(e.Services) != 1 || e.Services[0] == "" || !slices.IsSorted(e.Services) {
					t.Errorf("%s: got services %q", text, e.Services)
				}
			}
		}
	})
}
