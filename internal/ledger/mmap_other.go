// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package ledger

import (
	"errors"
	"os"
)

func mapFile(*os.File, int64, int) ([]byte, error) {
	return nil, errors.New("durable accounts need a Unix system; run without --data-dir")
}

func unmap([]byte) error { return nil }

func lockFile(*os.File) error { return nil }
