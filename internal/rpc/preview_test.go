// SPDX-License-Identifier: Apache-2.0

package rpc

import "testing"

// TestPreviewOfBodies: viewers see no bodies, by no door.
func TestPreviewOfBodies(t *testing.T) {
	for _, path := range []string{
		"/v1/flowcontrol/preview/http_requests/web", "/v1/flowcontrol/preview/http_requests/shop/web",
		"/aperture.flowcontrol.preview.v1.FlowPreviewService/PreviewHTTPRequests",
	} {
		if p := pathPermission(path); p.allows(RoleViewer) || p.allows(RoleClient) || !p.allows(RoleOperator) {
			t.Errorf("%s: permission %v", path, p)
		}
	}
}
