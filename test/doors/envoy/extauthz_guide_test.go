// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

func TestExtAuthzGuide(t *testing.T) {
	t.Parallel()
	envoy := doorstest.Require(t, "bin/envoy")
	app, sluice := doorstest.FreePort(t), doorstest.FreePort(t)
	config, ports := envoyConfig(t, extauthzFile, fmt.Sprintf("127.0.0.1:%d", sluice), fmt.Sprintf("127.0.0.1:%d", app))
	doorstest.Guide(t, "docs/guides/envoy.md", []string{filepath.Dir(envoy)}, []string{
		"sluice serve", fmt.Sprintf("sluice serve --listen 127.0.0.1:%d", sluice), "sluice health", fmt.Sprintf("sluice health --server 127.0.0.1:%d", sluice),
		"127.0.0.1 8000", fmt.Sprintf("127.0.0.1 %d", app),
		"envoy --config-path " + extauthzFile, "envoy --use-dynamic-base-id --config-path " + config,
		"http://127.0.0.1:10000", fmt.Sprintf("http://127.0.0.1:%d", ports.listen),
	})
}
