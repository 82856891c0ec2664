// SPDX-License-Identifier: Apache-2.0

package version

import "testing"

func TestString(t *testing.T) {
	for _, tt := range []struct {
		info Info
		want string
	}{
		{Info{Version: "v1.2.3", Commit: "0123456789abcdef"}, "v1.2.3"},
		{Info{Version: "devel"}, "devel"},
		{Info{Version: "devel", Commit: "0123456789abcdef"}, "devel (0123456789ab)"},
		{Info{Version: "devel", Commit: "0123456789abcdef", Modified: true}, "devel (0123456789ab, modified)"},
	} {
		if got := tt.info.String(); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.info, got, tt.want)
		}
	}
}

func TestGet(t *testing.T) {
	if got := Get(); got.Version == "" || got.Go == "" || got.Platform == "" {
		t.Errorf("got %+v, want version, go and platform set", got)
	}
}

func TestIsRelease(t *testing.T) {
	for v, want := range map[string]bool{
		"v1.2.3": true, "v1.2.3-rc.1": true, "": false, "(devel)": false,
		"v0.0.0-20261120204500-0123456789ab": false, "v1.2.4-0.20261120204500-0123456789ab+dirty": false,
	} {
		if got := isRelease(v); got != want {
			t.Errorf("isRelease(%q): got %v, want %v", v, got, want)
		}
	}
}
