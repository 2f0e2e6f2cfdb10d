{{- /* The bundled MinIO's keys as JSON: root's {user, password}, and {accessKey, secretKey} for jobs. Given, else what
the cluster has, else made once. They are remembered in the values, because all Secrets of a rendering must agree. */}}
{{- define "dreambooth.minioKeys" -}}
{{- $values := .Values.minio -}}
{{- if not (hasKey $values "remembered") -}}
{{- $old := (lookup "v1" "Secret" .Release.Namespace (include "dreambooth.name" (list . "minio"))).data | default dict -}}
{{- $user := $values.rootUser | default (get $old "rootUser" | b64dec) | default (printf "root-%s" (randAlphaNum 12 | lower)) -}}
{{- $password := $values.rootPassword | default (get $old "rootPassword" | b64dec) | default (randAlphaNum 40) -}}
{{- $access := get $old "accessKey" | b64dec | default (printf "jobs-%s" (randAlphaNum 12 | lower)) -}}
{{- $secret := get $old "secretKey" | b64dec | default (randAlphaNum 40) -}}
{{- $_ := set $values "remembered" (dict "user" $user "password" $password "accessKey" $access "secretKey" $secret) -}}
{{- end -}}
{{- toJson $values.remembered -}}
{{- end -}}

{{- /* Users that the bundled MinIO gets, as JSON: one for each key that the Secrets of store.namespaces hold. A key of
one namespace alone is confined to that namespace's prefix, the shared one to the bucket. */}}
{{- define "dreambooth.minioUsers" -}}
{{- $endpoint := printf "http://%s:9000" (include "dreambooth.host" (list . "minio")) -}}
{{- $keys := include "dreambooth.minioKeys" . | fromJson -}}
{{- $users := dict $keys.accessKey (dict "secretKey" $keys.secretKey "prefix" "") -}}
{{- range $namespace := .Values.store.secret.create | ternary .Values.store.namespaces list -}}
{{- $store := include "dreambooth.storeKeys" (list $ $namespace) | fromJson -}}
{{- $own := (get $.Values.store.perNamespace $namespace | default dict).accessKey -}}
{{- if eq $store.endpoint $endpoint -}}
{{- $_ := set $users $store.accessKey (dict "secretKey" $store.secretKey "prefix" (empty $own | ternary "" $store.prefix)) -}}
{{- end -}}
{{- end -}}
{{- toJson $users -}}
{{- end -}}

{{- /* What the Secret dreambooth-store of one namespace says, as JSON: (list $ "demo"). */}}
{{- define "dreambooth.storeKeys" -}}
{{- $root := index . 0 -}}
{{- $namespace := index . 1 -}}
{{- $store := merge (dict) (get $root.Values.store.perNamespace $namespace | default dict) $root.Values.store -}}
{{- $keys := dict "endpoint" $store.endpoint "accessKey" $store.accessKey "secretKey" $store.secretKey -}}
{{- if and (not $store.endpoint) $root.Values.minio.enabled -}}
{{- $minio := include "dreambooth.minioKeys" $root | fromJson -}}
{{- $url := printf "http://%s:9000" (include "dreambooth.host" (list $root "minio")) -}}
{{- $keys = dict "endpoint" $url "accessKey" ($store.accessKey | default $minio.accessKey) "secretKey" ($store.secretKey | default $minio.secretKey) -}}
{{- end -}}
{{- range $key, $value := $keys -}}
{{- if not $value -}}
{{- fail (printf "store.%s is empty for namespace %s: state your object store in store.*, or set minio.enabled for a demo" $key $namespace) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $keys "region" $store.region -}}
{{- $_ := set $keys "bucket" $store.bucket -}}
{{- $_ := set $keys "prefix" $store.prefix -}}
{{- $_ := set $keys "mlflowUri" ($store.mlflowUri | default (include "dreambooth.mlflowUri" $root)) -}}
{{- with $store.caCert -}}{{- $_ := set $keys "ca.crt" . -}}{{- end -}}
{{- with $store.mlflowToken -}}{{- $_ := set $keys "mlflowToken" . -}}{{- end -}}
{{- toJson $keys -}}
{{- end -}}
