// SPDX-License-Identifier: Apache-2.0

package classify

import "testing"

func TestIsSecret(t *testing.T) {
	for name, want := range map[string]bool{
		"authorization": true, "proxy-authorization": true, "Authorization": true, "x_forwarded_authorization": true,
		"cookie": true, "set-cookie": true, "x-api-key": true, "apiKey": true, "accessToken": true, "csrftoken": true,
		"x-csrf-token": true, "password": true, "new_password": true, "sessionid": true, "session": true, "code": true,
		"x-amz-signature": true, "client.secret": true,

		"auth": true, "x-auth": true, "xAuth": true, "basic_auth": true, "auth-code": true, "auth_data": true, "x-auth-pw": true,
		"x-auth-request-access-token": true, "auth-user-password": true, "x-user-auth": true, "auth-type-key": true,
		"x-envoy-auth-partial-body": false, "x_envoy_auth_partial_body": false, "x-envoy-auth-failure-mode-allowed": false,
		"x-auth-request-email": false, "x-auth-request-user": false, "authType": false, "auth-": true,

		"": false, "-": false, "tokens": false, "x-tokens": false, "user-agent": false, "author": false, "x-author": false,
		"authority": false, ":authority": false, "keyboard": false, "monkey": false, "codec": false, "body": false, "user": false,
		"zip-code": false, "sidecar": false, "design": false,
	} {
		if got := IsSecret(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { IsSecret("x-envoy-auth-partial-body") }); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
