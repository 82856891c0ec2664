// SPDX-License-Identifier: Apache-2.0

// Package sluice asks a Sluice server whether a piece of work may run now.
package sluice

import (
	_ "github.com/planetscale/vtprotobuf/protohelpers"
	_ "google.golang.org/grpc"
	_ "google.golang.org/protobuf/proto"
)
