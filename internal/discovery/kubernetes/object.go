// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"net/netip"
	"unique"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluice-project/sluice/internal/discovery"
)

// serviceLabel names the service that an EndpointSlice belongs to.
const serviceLabel = "kubernetes.io/service-name"

// maxEndpoints bounds one object; the API server allows 1,000 in a slice.
const maxEndpoints = 1_000

// fullName is the name of a service as policies select it.
func (s *Source) fullName(name, namespace string) string {
	return unique.Make(name + "." + namespace + ".svc." + s.config.ClusterDomain).Value()
}

// fromSlice reads the endpoints of an EndpointSlice. Whatever is missing or not what it should be is left out:
// endpoints need not be pods.
func (s *Source) fromSlice(o *unstructured.Unstructured) []discovery.Entity {
	service := o.GetLabels()[serviceLabel]
	if service == "" || text(o.Object, "addressType") == "FQDN" {
		return nil
	}
	services := []string{s.fullName(service, o.GetNamespace())}
	endpoints, _ := o.Object["endpoints"].([]any)
	var out []discovery.Entity
	for _, one := range endpoints[:min(len(endpoints), maxEndpoints)] {
		endpoint, _ := one.(map[string]any)
		node := text(endpoint, "nodeName")
		if s.config.Node != "" && node != s.config.Node {
			continue
		}
		target, _ := endpoint["targetRef"].(map[string]any)
		addresses, _ := endpoint["addresses"].([]any)
		for _, a := range addresses[:min(len(addresses), maxEndpoints)] {
			address, ok := ipText(a)
			if !ok {
				continue
			}
			e := discovery.Entity{Address: address, Node: unique.Make(node).Value(), Services: services}
			if target != nil {
				e.UID, e.Name = text(target, "uid"), text(target, "name")
				e.Namespace = unique.Make(text(target, "namespace")).Value()
			} else {
				e.Name = text(endpoint, "hostname")
			}
			out = append(out, e)
		}
	}
	return out
}

// fromService reads the addresses that a Service has itself, whatever its type.
func (s *Source) fromService(o *unstructured.Unstructured) []discovery.Entity {
	spec, _ := o.Object["spec"].(map[string]any)
	addresses, _ := spec["clusterIPs"].([]any)
	if len(addresses) == 0 {
		addresses = []any{spec["clusterIP"]}
	}
	services := []string{s.fullName(o.GetName(), o.GetNamespace())}
	var out []discovery.Entity
	for _, a := range addresses[:min(len(addresses), maxEndpoints)] {
		if address, ok := ipText(a); ok { // headless ones have "None"
			out = append(out, discovery.Entity{
				Address: address, UID: address, Name: "ClusterIP-" + o.GetNamespace() + "-" + o.GetName() + "-" + address,
				Namespace: unique.Make(o.GetNamespace()).Value(), Services: services,
			})
		}
	}
	return out
}

// text reads a field that should be text; "" when it is not there or is something else.
func text(m map[string]any, field string) string {
	s, _ := m[field].(string)
	return s
}

func ipText(v any) (string, bool) {
	s, _ := v.(string)
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return "", false
	}
	return ip.Unmap().WithZone("").String(), true
}
