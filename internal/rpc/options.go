// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"runtime"

	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/api/codec"
)

// HotServerOptions are what makes grpc-go fast for small messages; the product and its benchmark use the
// same. Workers reuse goroutine stacks.
func HotServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec.Codec{}),
		grpc.NumStreamWorkers(uint32(max(2, 2*runtime.GOMAXPROCS(0)))),
	}
}
