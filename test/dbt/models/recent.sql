{{ config(materialized='view') }}
select id, email, v from {{ ref('customers') }} where id > 5
