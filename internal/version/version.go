// SPDX-License-Identifier: Apache-2.0

// Package version tells which build of Sluice this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// release is set by the release build with -ldflags "-X …/internal/version.release=v1.2.3".
var release string

// Info describes a build. Fields that are not known are empty.
type Info struct {
	Version  string `json:"version"`          // v1.2.3, or "devel" for a build from a checkout
	Commit   string `json:"commit,omitempty"` // of the source, in hex
	Time     string `json:"time,omitempty"`   // of that commit, RFC 3339
	Modified bool   `json:"modified"`         // the source differed from the commit
	Go       string `json:"go"`               // version of the compiler
	Platform string `json:"platform"`         // operating system and processor
}

// Get reads what the linker has recorded.
func Get() Info {
	out := Info{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			out.Commit = s.Value
		case "vcs.time":
			out.Time = s.Value
		case "vcs.modified":
			out.Modified = s.Value == "true"
		}
	}
	if v := build.Main.Version; out.Version == "" && isRelease(v) {
		out.Version = v // installed with go install …@v1.2.3
	}
	if out.Version == "" {
		out.Version = "devel"
	}
	return out
}

// isRelease tells v1.2.3 from what Go makes up for a checkout, which repeats the commit.
func isRelease(v string) bool {
	return v != "" && v != "(devel)" && !strings.ContainsAny(v, "+") && strings.Count(v, "-") < 2
}

// String is the version and, for builds that are no release, the commit.
func (i Info) String() string {
	if i.Version != "devel" || i.Commit == "" {
		return i.Version
	}
	dirty := ""
	if i.Modified {
		dirty = ", modified"
	}
	return fmt.Sprintf("%s (%.12s%s)", i.Version, i.Commit, dirty)
}
